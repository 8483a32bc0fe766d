//! Scaling of rotary positions, as `rope_scaling` or `rope_parameters` declares it.
//!
//! Supported are none, `default`, `linear`, `llama3`, `yarn`, `longrope` (also `su`) and `dynamic`.

use super::parse::{MAX_POSITIONS, written_positions};
use super::{
    DynamicScaling, Fields, Llama3Scaling, LongRopeScaling, RopeScaling, YarnScaling, describe,
};
use crate::ConfigError;

/// The scaling that an object declares, `Some(None)` for one that does nothing; `None` where it declares none.
pub(super) fn parse(
    fields: Fields<'_>,
    object: Fields<'_>,
    field: &'static str,
    rotary_dim: usize,
) -> Result<Option<Option<RopeScaling>>, ConfigError> {
    let beta = "llama_4_scaling_beta";
    if let Some(got) = object.number(beta)?.filter(|&got| got != 0.0) {
        let limit = "0: queries are not scaled by their positions";
        return Err(out_of_range(object, beta, got, limit));
    }
    // Hunyuan's dynamic scaling has this in place of a factor.
    let alpha = "alpha";
    if let Some(got) = object.number(alpha)?.filter(|&got| got != 1.0) {
        let limit = "1: dynamic scaling has a factor";
        return Err(out_of_range(object, alpha, got, limit));
    }
    let kind = match object.text("rope_type")? {
        Some(kind) => Some(kind),
        None => object.text("type")?,
    };
    Ok(match kind {
        Some("default") => Some(None),
        Some("linear") => Some(linear(object)?),
        Some("llama3") => Some(Some(RopeScaling::Llama3(llama3(object)?))),
        Some("longrope" | "su") => Some(Some(longrope(fields, object, rotary_dim)?)),
        // The first Phi-3 files have lists of factors under this name.
        Some("yarn") if object.get(LONG).is_some() => {
            Some(Some(longrope(fields, object, rotary_dim)?))
        }
        Some("yarn") => Some(Some(RopeScaling::Yarn(yarn(fields, object)?))),
        Some("dynamic") => Some(dynamic(fields, object, rotary_dim)?),
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

/// Tells whether an object declares a scaling that does something.
pub(super) fn declares(object: Fields<'_>) -> Result<bool, ConfigError> {
    let kind = match object.text("rope_type")? {
        Some(kind) => Some(kind),
        None => object.text("type")?,
    };
    let factor = object.number("factor")?.is_some_and(|factor| factor != 1.0);
    Ok(factor || kind.is_some_and(|kind| kind != "default"))
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

/// As `transformers` reads it. The original length may stand beside the scaling, which is where Phi-3 has it; what cosines and sines
/// are multiplied by follows from the factor, and that from the two lengths, where the file does not give it.
fn longrope(
    fields: Fields<'_>,
    object: Fields<'_>,
    rotary_dim: usize,
) -> Result<RopeScaling, ConfigError> {
    let original = match (fields.size(ORIGINAL)?, object.size(ORIGINAL)?) {
        (Some(beside), Some(own)) if beside != own => {
            return Err(ConfigError::Conflict {
                file: fields.file,
                field: ORIGINAL,
                got: beside.to_string(),
                other: "rope_scaling.original_max_position_embeddings",
                other_got: own.to_string(),
                rule: "what stands twice agrees",
            });
        }
        (Some(original), _) | (None, Some(original)) => usize::try_from(original).unwrap_or(0),
        (None, None) => {
            return Err(ConfigError::Missing {
                file: fields.file,
                field: ORIGINAL,
                expected: "the length in tokens up to which rope type longrope takes its short factors",
            });
        }
    };
    let factor = match object.number("factor")? {
        Some(factor) => factor,
        None => (written_positions(fields)? as f64 / original.max(1) as f64).max(1.0),
    };
    stretch(object, factor, original)?;
    if original < 2 {
        return Err(out_of_range(object, ORIGINAL, original, "at least 2"));
    }
    let derived = (1.0 + factor.ln() / (original as f64).ln()).sqrt();
    let given = object.number("attention_factor")?;
    let attention = |scale: &'static str| {
        // A scale of 0 counts as left out.
        let scale = object.number(scale)?.filter(|&scale| scale != 0.0);
        let factor = given.or(scale).unwrap_or(derived);
        match factor > 0.0 {
            true => Ok(factor),
            false => Err(out_of_range(
                object,
                "attention_factor",
                factor,
                "a number above zero",
            )),
        }
    };
    Ok(RopeScaling::LongRope(LongRopeScaling {
        short_factors: factors(object, SHORT, rotary_dim)?,
        long_factors: factors(object, LONG, rotary_dim)?,
        factor,
        original_max_positions: original,
        short_attention_factor: attention("short_mscale")?,
        long_attention_factor: attention("long_mscale")?,
    }))
}

/// One divisor a pair of rotated elements.
fn factors(
    object: Fields<'_>,
    field: &'static str,
    rotary_dim: usize,
) -> Result<Vec<f64>, ConfigError> {
    let expected = "a list of numbers above zero, one a pair of rotated elements";
    let value = object.get(field).ok_or(ConfigError::Missing {
        file: object.file,
        field,
        expected,
    })?;
    let list = value.as_array();
    let list = list.ok_or_else(|| object.wrong(field, value, expected))?;
    let sound = |factor: &f64| factor.is_finite() && *factor > 0.0;
    let each = list.iter().map(|factor| {
        let number = factor.as_f64().filter(sound);
        number.ok_or_else(|| object.wrong(field, factor, expected))
    });
    let factors = each.collect::<Result<Vec<_>, _>>()?;
    match factors.len() == rotary_dim / 2 {
        true => Ok(factors),
        false => {
            let got = format!("a list of {}", factors.len());
            let limit = format!(
                "{}, one a pair of {rotary_dim} rotated elements",
                rotary_dim / 2
            );
            Err(out_of_range(object, field, got, &limit))
        }
    }
}

/// A base that grows from `max_position_embeddings` on; none at a factor of 1.
fn dynamic(
    fields: Fields<'_>,
    object: Fields<'_>,
    rotary_dim: usize,
) -> Result<Option<RopeScaling>, ConfigError> {
    let factor = object.number("factor")?.ok_or(ConfigError::Missing {
        file: object.file,
        field: "factor",
        expected: "a number, as rope type dynamic needs",
    })?;
    let original = written_positions(fields)?;
    stretch(object, factor, original)?;
    if let Some(own) = object.size(ORIGINAL)?.filter(|&own| own != original as u64) {
        return Err(ConfigError::Conflict {
            file: fields.file,
            field: ORIGINAL,
            got: own.to_string(),
            other: "max_position_embeddings",
            other_got: original.to_string(),
            rule: "rope type dynamic grows from one length",
        });
    }
    if rotary_dim < 4 {
        let limit = "at least 4 rotated elements a head, as rope type dynamic needs";
        return Err(out_of_range(
            object,
            "partial_rotary_factor",
            rotary_dim,
            limit,
        ));
    }
    Ok(
        (factor > 1.0).then_some(RopeScaling::Dynamic(DynamicScaling {
            factor,
            original_max_positions: original,
        })),
    )
}

const ORIGINAL: &str = "original_max_position_embeddings";
const SHORT: &str = "short_factor";
const LONG: &str = "long_factor";

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

pub(super) fn out_of_range(
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
