//! Rotary position fields: `rope_theta` and `rope_scaling`, or the newer `rope_parameters` that holds both.
//!
//! Supported scalings are none, `default`, `linear`, `llama3` and `yarn`. Each of the two objects may hold the base too, and may
//! be nested by the kind of a layer, where that of full attention counts. Whatever stands twice in one file must agree.

use super::parse::{MAX_POSITIONS, written_positions};
use super::{Fields, Llama3Scaling, RopeScaling, YarnScaling, describe};
use crate::ConfigError;

const DEFAULT_THETA: f64 = 10_000.0;

/// The objects that hold rotary fields, and the names of their bases.
const OBJECTS: [(&str, &str); 2] = [
    ("rope_scaling", "rope_scaling.rope_theta"),
    ("rope_parameters", "rope_parameters.rope_theta"),
];
/// The kind of every layer that is run, by which an object may be nested.
const FULL: &str = "full_attention";

/// Base of the frequencies, and their scaling.
pub(super) fn parse(fields: Fields<'_>) -> Result<(f64, Option<RopeScaling>), ConfigError> {
    let mut theta = fields.number("rope_theta")?.map(|own| ("rope_theta", own));
    let mut scaling: Option<(&'static str, Option<RopeScaling>)> = None;
    for (field, name) in OBJECTS {
        let Some(outer) = fields.object(field)? else {
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
        for object in [Some(outer), nested].into_iter().flatten() {
            if let Some(own) = object.number("rope_theta")? {
                match theta {
                    Some((other, got)) if got != own => {
                        return Err(conflict(fields, other, got, name, own));
                    }
                    _ => theta = Some((name, own)),
                }
            }
            if let Some(own) = scaling_of(fields, object, field)? {
                match scaling {
                    Some((other, got)) if got != own => {
                        let (got, own) = (format!("{got:?}"), format!("{own:?}"));
                        return Err(conflict(fields, other, got, field, own));
                    }
                    _ => scaling = Some((field, own)),
                }
            }
        }
    }
    let theta = theta.map_or(DEFAULT_THETA, |(_, theta)| theta);
    if theta <= 0.0 {
        let limit = "a number above zero";
        return Err(out_of_range(fields, "rope_theta", theta, limit));
    }
    Ok((theta, scaling.and_then(|(_, scaling)| scaling)))
}

/// The scaling that an object declares, `Some(None)` for one that does nothing; `None` where it declares none.
fn scaling_of(
    fields: Fields<'_>,
    object: Fields<'_>,
    field: &'static str,
) -> Result<Option<Option<RopeScaling>>, ConfigError> {
    for (name, off, limit) in [
        (
            "partial_rotary_factor",
            1.0,
            "1: rotary positions cover the whole head",
        ),
        (
            "llama_4_scaling_beta",
            0.0,
            "0: queries are not scaled by their positions",
        ),
    ] {
        if let Some(got) = object.number(name)?.filter(|&got| got != off) {
            return Err(out_of_range(object, name, got, limit));
        }
    }
    let kind = match object.text("rope_type")? {
        Some(kind) => Some(kind),
        None => object.text("type")?,
    };
    Ok(match kind {
        Some("default") => Some(None),
        Some("linear") => Some(linear(object)?),
        Some("llama3") => Some(Some(RopeScaling::Llama3(llama3(object)?))),
        Some("yarn") => Some(Some(RopeScaling::Yarn(yarn(fields, object)?))),
        // Within the model's own length this one does nothing at a factor of 1.
        Some("dynamic") if object.number("factor")? == Some(1.0) => Some(None),
        None if object.number("factor")?.is_none_or(|factor| factor == 1.0) => None,
        other => {
            let got = match other {
                Some(kind) => describe(&kind.into()),
                None => "(none) beside a factor".to_owned(),
            };
            return Err(ConfigError::RopeScaling { field, got });
        }
    })
}

/// Linear interpolation; none at a factor of 1.
fn linear(object: Fields<'_>) -> Result<Option<RopeScaling>, ConfigError> {
    let factor = object.number("factor")?.ok_or(ConfigError::Missing {
        file: object.file,
        field: "factor",
        expected: "a number, as rope type linear needs",
    })?;
    if !(1.0..=MAX_POSITIONS as f64).contains(&factor) {
        let limit = "a number in 1..=268435456";
        return Err(out_of_range(object, "factor", factor, limit));
    }
    Ok((factor > 1.0).then_some(RopeScaling::Linear { factor }))
}

fn llama3(object: Fields<'_>) -> Result<Llama3Scaling, ConfigError> {
    let number = |field: &'static str| {
        object.number(field)?.ok_or(ConfigError::Missing {
            file: object.file,
            field,
            expected: "a number, as rope type llama3 needs",
        })
    };
    let scaling = Llama3Scaling {
        factor: number("factor")?,
        low_freq_factor: number("low_freq_factor")?,
        high_freq_factor: number("high_freq_factor")?,
        original_max_positions: object
            .size(ORIGINAL)?
            .and_then(|size| usize::try_from(size).ok())
            .ok_or(ConfigError::Missing {
                file: object.file,
                field: ORIGINAL,
                expected: "a length in tokens",
            })?,
    };
    stretch(object, scaling.factor, scaling.original_max_positions)?;
    if scaling.low_freq_factor <= 0.0 {
        return Err(out_of_range(
            object,
            "low_freq_factor",
            scaling.low_freq_factor,
            "a number above zero",
        ));
    }
    if scaling.high_freq_factor <= scaling.low_freq_factor {
        return Err(out_of_range(
            object,
            "high_freq_factor",
            scaling.high_freq_factor,
            "more than low_freq_factor",
        ));
    }
    Ok(scaling)
}

/// As `transformers` reads it: what is not given follows from the factor, and the original length from
/// `max_position_embeddings`.
fn yarn(fields: Fields<'_>, object: Fields<'_>) -> Result<YarnScaling, ConfigError> {
    let original = match object.size(ORIGINAL)? {
        Some(size) => usize::try_from(size).unwrap_or(0),
        None => written_positions(fields)?,
    };
    let factor = object.number("factor")?.ok_or(ConfigError::Missing {
        file: object.file,
        field: "factor",
        expected: "a number, as rope type yarn needs",
    })?;
    stretch(object, factor, original)?;
    // What queries and keys are to gain at a stretch, times a weight.
    let gain = |weight: f64| match factor > 1.0 {
        true => 0.1 * weight * factor.ln() + 1.0,
        false => 1.0,
    };
    let weight = |field| {
        let found = object.number(field)?;
        Ok::<_, ConfigError>(found.filter(|&weight| weight != 0.0))
    };
    let derived = match (weight("mscale")?, weight("mscale_all_dim")?) {
        (Some(one), Some(all)) => gain(one) / gain(all),
        _ => gain(1.0),
    };
    let scaling = YarnScaling {
        factor,
        original_max_positions: original,
        attention_factor: object.number("attention_factor")?.unwrap_or(derived),
        beta_fast: weight("beta_fast")?.unwrap_or(32.0),
        beta_slow: weight("beta_slow")?.unwrap_or(1.0),
        truncate: object.flag("truncate")?.unwrap_or(true),
    };
    for (field, got) in [
        ("attention_factor", scaling.attention_factor),
        ("beta_slow", scaling.beta_slow),
    ] {
        if got <= 0.0 || !got.is_finite() {
            return Err(out_of_range(object, field, got, "a number above zero"));
        }
    }
    if scaling.beta_fast < scaling.beta_slow {
        let limit = "at least beta_slow";
        return Err(out_of_range(object, "beta_fast", scaling.beta_fast, limit));
    }
    Ok(scaling)
}

const ORIGINAL: &str = "original_max_position_embeddings";

/// Checks a stretch of an original length.
fn stretch(object: Fields<'_>, factor: f64, original: usize) -> Result<(), ConfigError> {
    if factor < 1.0 {
        return Err(out_of_range(object, "factor", factor, "at least 1"));
    }
    if original == 0 || original > MAX_POSITIONS {
        let limit = "a length in 1..=268435456";
        return Err(out_of_range(object, ORIGINAL, original, limit));
    }
    if factor * original as f64 > MAX_POSITIONS as f64 {
        let limit = "at most 268435456 positions in all";
        return Err(out_of_range(object, "factor", factor, limit));
    }
    Ok(())
}

fn out_of_range(
    fields: Fields<'_>,
    field: &'static str,
    got: impl ToString,
    expected: &str,
) -> ConfigError {
    ConfigError::Value {
        file: fields.file,
        field,
        got: got.to_string(),
        expected: expected.to_owned(),
    }
}

fn conflict(
    fields: Fields<'_>,
    field: &'static str,
    got: impl ToString,
    other: &'static str,
    other_got: impl ToString,
) -> ConfigError {
    ConfigError::Conflict {
        file: fields.file,
        field,
        got: got.to_string(),
        other,
        other_got: other_got.to_string(),
        rule: "what stands twice agrees",
    }
}
