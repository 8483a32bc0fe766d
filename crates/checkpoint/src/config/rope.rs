//! Rotary position fields: base, rotated part of a head and scaling, beside each other or in `rope_scaling` or the newer
//! `rope_parameters`.
//!
//! Each of the two objects may hold all three, and may be nested by the kind of a layer: `full_attention` is the model's rotation,
//! `sliding_attention` that of layers with a window, which is the model's own where nothing says otherwise. Gemma's files have its
//! base in `rope_local_base_freq`. Whatever stands twice in one file must agree.

use std::fmt::Debug;

use super::scaling::{self, out_of_range};
use super::{Architecture, Fields, LayerAttention, LayerRotation, RopeScaling};
use crate::ConfigError;

const THETA: &str = "rope_theta";
const LOCAL_THETA: &str = "rope_local_base_freq";
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
/// The kinds of layers by which an object may be nested.
const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";

/// Rotary positions of a model.
pub(super) struct Rope {
    /// Base of the frequencies.
    pub(super) theta: f64,
    /// Elements at the front of a head that are rotated.
    pub(super) rotary_dim: usize,
    pub(super) scaling: Option<RopeScaling>,
    /// Base of the frequencies of layers with [`LayerRotation::Local`], if there are any.
    pub(super) local_theta: f64,
}

impl Rope {
    /// The rotary fields of a model with heads of `head_dim` elements. Layers of `attention` with a window and a rotation of their own
    /// become [`LayerRotation::Local`].
    pub(super) fn parse(
        fields: Fields<'_>,
        family: Architecture,
        head_dim: usize,
        attention: &mut [LayerAttention],
    ) -> Result<Self, ConfigError> {
        // Where every layer has a window, its rotation is the model's.
        let main = match attention.iter().all(|layer| layer.window.is_some()) {
            true => [FULL, SLIDING],
            false => [FULL, FULL],
        };
        let objects = objects(fields, main)?;
        let (mut theta, mut fraction) = (Stated::default(), Stated::default());
        theta.add(fields, THETA, fields.number(THETA)?)?;
        fraction.add(fields, FRACTION, fields.number(FRACTION)?)?;
        for (names, object) in &objects {
            theta.add(fields, names.theta, object.number(THETA)?)?;
            fraction.add(fields, names.fraction, object.number(FRACTION)?)?;
        }
        let theta = base(
            fields,
            THETA,
            theta.value().unwrap_or(family.default_theta()),
        )?;
        let rotary_dim = rotated(fields, fraction.value().unwrap_or(1.0), head_dim)?;
        let mut scaling = Stated::default();
        for (names, object) in &objects {
            let own = scaling::parse(fields, *object, names.field, rotary_dim)?;
            scaling.add(fields, names.field, own)?;
        }
        let scaling = scaling.value().flatten();
        let local = local(fields, family, theta, (head_dim, rotary_dim))?
            .filter(|own| *own != theta || scaling.is_some());
        if local.is_some() {
            let own = |layer: &&mut LayerAttention| {
                layer.window.is_some() && layer.rotation == LayerRotation::Main
            };
            for layer in attention.iter_mut().filter(own) {
                layer.rotation = LayerRotation::Local;
            }
        }
        Ok(Self {
            theta,
            rotary_dim,
            scaling,
            local_theta: local.unwrap_or(theta),
        })
    }
}

/// Every object of a file that holds rotary fields, nested ones after those around them.
fn objects<'a>(
    fields: Fields<'a>,
    main: [&str; 2],
) -> Result<Vec<(&'static Object, Fields<'a>)>, ConfigError> {
    let mut found = Vec::new();
    for names in &OBJECTS {
        let Some(outer) = fields.object(names.field)? else {
            continue;
        };
        let nested = match outer.object(main[0])? {
            None => outer.object(main[1])?,
            found => found,
        };
        if nested.is_none() && outer.holds_objects() {
            return Err(ConfigError::Missing {
                file: fields.file,
                field: "full_attention` in `rope_parameters` or `rope_scaling",
                expected: "the rotary fields of layers with full attention",
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

/// The base of the rotation that layers with a window have of their own, which is not scaled; `None` where nothing says so. Of the model's
/// rotation, `main` is the base, and of a head of so many elements so many are rotated.
fn local(
    fields: Fields<'_>,
    family: Architecture,
    main: f64,
    (head_dim, rotary_dim): (usize, usize),
) -> Result<Option<f64>, ConfigError> {
    let mut own_object = false;
    let mut theta = Stated::default();
    theta.add(fields, LOCAL_THETA, fields.number(LOCAL_THETA)?)?;
    for names in &OBJECTS {
        let outer = fields.object(names.field)?;
        // Beside no full attention it is the model's rotation.
        let Some(outer) = outer.filter(|outer| outer.get(FULL).is_some()) else {
            continue;
        };
        let Some(own) = outer.object(SLIDING)? else {
            continue;
        };
        if scaling::declares(own)? {
            return Err(ConfigError::UnsupportedFeature {
                field: names.field,
                got: "a scaling in sliding_attention".to_owned(),
                way_out: "layers with a window have rotary positions of type default",
            });
        }
        if let Some(share) = own.number(FRACTION)?
            && rotated(fields, share, head_dim)? != rotary_dim
        {
            return Err(ConfigError::UnsupportedFeature {
                field: names.field,
                got: format!("{FRACTION} {share} in sliding_attention"),
                way_out: "all layers rotate the same part of a head",
            });
        }
        own_object = true;
        theta.add(fields, names.theta, own.number(THETA)?)?;
    }
    let stated = theta.value().or(family.default_local_theta());
    match stated.or(own_object.then_some(main)) {
        Some(theta) => base(fields, LOCAL_THETA, theta).map(Some),
        None => Ok(None),
    }
}

/// A base of rotary frequencies, checked.
fn base(fields: Fields<'_>, field: &'static str, theta: f64) -> Result<f64, ConfigError> {
    match theta > 0.0 {
        true => Ok(theta),
        false => Err(out_of_range(fields, field, theta, "a number above zero")),
    }
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
