//! Rotary position fields: `rope_theta` and `rope_scaling`, or the newer `rope_parameters` that holds both.
//!
//! Supported scalings are none, `default` and `llama3`. Where both dialects stand in one file they must agree.

use super::{Fields, Llama3Scaling};
use crate::ConfigError;

const DEFAULT_THETA: f64 = 10_000.0;

/// Base of the frequencies, and their scaling.
pub(super) fn parse(fields: Fields<'_>) -> Result<(f64, Option<Llama3Scaling>), ConfigError> {
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
        .map(|object| scaling_of(object, "rope_scaling"))
        .transpose()?;
    let new = parameters
        .map(|object| scaling_of(object, "rope_parameters"))
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
    object: Fields<'_>,
    field: &'static str,
) -> Result<Option<Llama3Scaling>, ConfigError> {
    let kind = match object.text("rope_type")? {
        Some(kind) => Some(kind),
        None => object.text("type")?,
    };
    match kind {
        Some("llama3") => llama3(object).map(Some),
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
    let original = "original_max_position_embeddings";
    let scaling = Llama3Scaling {
        factor: number("factor")?,
        low_freq_factor: number("low_freq_factor")?,
        high_freq_factor: number("high_freq_factor")?,
        original_max_positions: object
            .size(original)?
            .and_then(|size| usize::try_from(size).ok())
            .ok_or(ConfigError::Missing {
                file: object.file,
                field: original,
                expected: "a length in tokens",
            })?,
    };
    if scaling.factor < 1.0 {
        return Err(out_of_range(object, "factor", scaling.factor, "at least 1"));
    }
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
    if scaling.original_max_positions == 0 || scaling.original_max_positions > 1 << 28 {
        return Err(out_of_range(
            object,
            original,
            scaling.original_max_positions,
            "a length in 1..=268435456",
        ));
    }
    Ok(scaling)
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
