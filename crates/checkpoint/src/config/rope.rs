//! Rotary position fields: `rope_theta` and `rope_scaling`, or the newer `rope_parameters` that holds both.
//!
//! Supported scalings are none, `default`, `llama3` and `yarn`. Where both dialects stand in one file they must agree.

use super::{Fields, Llama3Scaling, RopeScaling, YarnScaling, parse::MAX_POSITIONS};
use crate::ConfigError;

const DEFAULT_THETA: f64 = 10_000.0;

/// Base of the frequencies, and their scaling.
pub(super) fn parse(fields: Fields<'_>) -> Result<(f64, Option<RopeScaling>), ConfigError> {
    let parameters = fields.object("rope_parameters")?;
    let scaling = fields.object("rope_scaling")?;
    let outer = fields.number("rope_theta")?;
    let inner = parameters
        .map(|object| object.number("rope_theta"))
        .transpose()?
        .flatten();
    if let (Some(a), Some(b)) = (outer, inner)
        && a != b
    {
        return Err(conflict(
            fields,
            "rope_theta",
            a,
            "rope_parameters.rope_theta",
            b,
        ));
    }
    let theta = outer.or(inner).unwrap_or(DEFAULT_THETA);
    if theta <= 0.0 {
        return Err(out_of_range(
            fields,
            "rope_theta",
            theta,
            "a number above zero",
        ));
    }

    let old = scaling
        .map(|object| scaling_of(fields, object, "rope_scaling"))
        .transpose()?;
    let new = parameters
        .map(|object| scaling_of(fields, object, "rope_parameters"))
        .transpose()?;
    match (old, new) {
        (Some(a), Some(b)) if a != b => Err(conflict(
            fields,
            "rope_scaling",
            format!("{a:?}"),
            "rope_parameters",
            format!("{b:?}"),
        )),
        (a, b) => Ok((theta, a.or(b).flatten())),
    }
}

fn scaling_of(
    fields: Fields<'_>,
    object: Fields<'_>,
    field: &'static str,
) -> Result<Option<RopeScaling>, ConfigError> {
    let kind = match object.text("rope_type")? {
        Some(kind) => Some(kind),
        None => object.text("type")?,
    };
    match kind {
        Some("llama3") => llama3(object).map(RopeScaling::Llama3).map(Some),
        Some("yarn") => yarn(fields, object).map(RopeScaling::Yarn).map(Some),
        Some("default") => Ok(None),
        None if field == "rope_parameters" => Ok(None),
        other => Err(ConfigError::RopeScaling {
            field,
            got: format!("{:?}", other.unwrap_or("(none)")),
        }),
    }
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
        Some(size) => Some(size),
        None => fields.size("max_position_embeddings")?,
    };
    let original = original.and_then(|size| usize::try_from(size).ok());
    let factor = object.number("factor")?.ok_or(ConfigError::Missing {
        file: object.file,
        field: "factor",
        expected: "a number, as rope type yarn needs",
    })?;
    let original = original.unwrap_or(0);
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
        rule: "the old and the new spelling agree",
    }
}
