//! Rotary position fields: base, rotated part of a head and scaling, beside each other or in `rope_scaling` or the newer
//! `rope_parameters`.
//!
//! Each of the two objects may hold all three, and may be nested by the kind of a layer, where that of full attention counts.
//! Whatever stands twice in one file must agree.

use std::fmt::Debug;

use super::scaling::{self, out_of_range};
use super::{Fields, RopeScaling};
use crate::ConfigError;

const THETA: &str = "rope_theta";
const DEFAULT_THETA: f64 = 10_000.0;
const FRACTION: &str = "partial_rotary_factor";

/// An object that holds rotary fields, and the names of those that may stand elsewhere too.
struct Object {
    field: &'static str,
    theta: &'static str,
    fraction: &'static str,
}

const OBJECTS: [Object; 2] = [
    Object {
        field: "rope_scaling",
        theta: "rope_scaling.rope_theta",
        fraction: "rope_scaling.partial_rotary_factor",
    },
    Object {
        field: "rope_parameters",
        theta: "rope_parameters.rope_theta",
        fraction: "rope_parameters.partial_rotary_factor",
    },
];
/// The kind of every layer that is run, by which an object may be nested.
const FULL: &str = "full_attention";

/// Rotary positions of a model.
pub(super) struct Rope {
    /// Base of the frequencies.
    pub(super) theta: f64,
    /// Elements at the front of a head that are rotated.
    pub(super) rotary_dim: usize,
    pub(super) scaling: Option<RopeScaling>,
}

impl Rope {
    /// The rotary fields of a model with heads of `head_dim` elements.
    pub(super) fn parse(fields: Fields<'_>, head_dim: usize) -> Result<Self, ConfigError> {
        let objects = objects(fields)?;
        let (mut theta, mut fraction) = (Stated::default(), Stated::default());
        theta.add(fields, THETA, fields.number(THETA)?)?;
        fraction.add(fields, FRACTION, fields.number(FRACTION)?)?;
        for (names, object) in &objects {
            theta.add(fields, names.theta, object.number(THETA)?)?;
            fraction.add(fields, names.fraction, object.number(FRACTION)?)?;
        }
        let theta = theta.value().unwrap_or(DEFAULT_THETA);
        if theta <= 0.0 {
            return Err(out_of_range(fields, THETA, theta, "a number above zero"));
        }
        let rotary_dim = rotated(fields, fraction.value().unwrap_or(1.0), head_dim)?;
        let mut scaling = Stated::default();
        for (names, object) in &objects {
            let own = scaling::parse(fields, *object, names.field, rotary_dim)?;
            scaling.add(fields, names.field, own)?;
        }
        Ok(Self {
            theta,
            rotary_dim,
            scaling: scaling.value().flatten(),
        })
    }
}

/// Every object of a file that holds rotary fields, nested ones after those around them.
fn objects(fields: Fields<'_>) -> Result<Vec<(&'static Object, Fields<'_>)>, ConfigError> {
    let mut found = Vec::new();
    for names in &OBJECTS {
        let Some(outer) = fields.object(names.field)? else {
            continue;
        };
        let nested = outer.object(FULL)?;
        if nested.is_none() && outer.holds_objects() {
            return Err(ConfigError::Missing {
                file: fields.file,
                field: "full_attention` in `rope_parameters` or `rope_scaling",
                expected: "the rotary fields of full attention, which every layer has",
            });
        }
        found.extend(
            [Some(outer), nested]
                .into_iter()
                .flatten()
                .map(|o| (names, o)),
        );
    }
    Ok(found)
}

/// Elements of a head that a fraction of it rotates.
fn rotated(fields: Fields<'_>, fraction: f64, head_dim: usize) -> Result<usize, ConfigError> {
    let refuse = |limit: &str| Err(out_of_range(fields, FRACTION, fraction, limit));
    if !(fraction > 0.0 && fraction <= 1.0) {
        return refuse("a number above 0 and at most 1");
    }
    let rotated = (head_dim as f64 * fraction) as usize;
    match rotated >= 2 && rotated.is_multiple_of(2) {
        true => Ok(rotated),
        false => refuse(&format!(
            "a share of head_dim {head_dim} that comes to an even number of elements, at least 2"
        )),
    }
}

/// A value that may stand in several places of a file, and the first of them.
struct Stated<T>(Option<(&'static str, T)>);

impl<T> Default for Stated<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: PartialEq + Debug> Stated<T> {
    /// Takes what `field` says, if anything.
    fn add(
        &mut self,
        fields: Fields<'_>,
        field: &'static str,
        own: Option<T>,
    ) -> Result<(), ConfigError> {
        match (&self.0, own) {
            (Some((other, got)), Some(own)) if *got != own => Err(ConfigError::Conflict {
                file: fields.file,
                field: other,
                got: shown(got),
                other: field,
                other_got: shown(&own),
                rule: "what stands twice agrees",
            }),
            (None, Some(own)) => {
                self.0 = Some((field, own));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn value(self) -> Option<T> {
        self.0.map(|(_, value)| value)
    }
}

/// A value in a message, cut at 160 characters.
fn shown(value: &impl Debug) -> String {
    format!("{value:?}").chars().take(160).collect()
}
