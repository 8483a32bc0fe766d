//! `rope_scaling` of config.json.
//!
//! GGUF declares linear interpolation and YaRN by name. Llama 3's scaling it keeps as one divisor per frequency instead, in a tensor: the
//! parameters of Llama 3.1 and later are known, and where they give those numbers they are what the model was made with.

use std::f64::consts::TAU;

use serde_json::{Value, json};

use super::config::unsupported;
use super::names::ROPE_FREQS;
use crate::GgufError;
use crate::gguf::GgufFile;
use crate::gguf::dequant::dequantize;
use crate::gguf::metadata::{Metadata, required};

/// Factors by which positions are stretched.
const FACTORS: std::ops::RangeInclusive<f64> = 1.0..=268_435_456.0;

/// Factors of queries and keys, under both names.
const ATTENTION_FACTORS: [&str; 2] = ["rope.scaling.attn_factor", "rope.scaling.yarn_attn_factor"];

/// Parameters of Llama 3.1, 3.2 and 3.3, which differ in the factor alone.
const LOW: f64 = 1.0;
const HIGH: f64 = 4.0;
const ORIGINAL: f64 = 8192.0;
/// Relative error by which divisors may differ: converters compute them in f32.
const TOLERANCE: f64 = 1e-4;

/// The value of the field, null for none.
pub(super) fn scaling(
    file: &GgufFile,
    key: &impl Fn(&str) -> String,
    theta: f64,
    head_dim: u64,
) -> Result<Value, GgufError> {
    let declared = declared(&file.metadata, key)?;
    let mut tensors = file.tensors.iter();
    let Some(tensor) = tensors.find(|tensor| tensor.name == ROPE_FREQS) else {
        return Ok(declared);
    };
    let mut divisors = vec![0.0; tensor.shape().iter().product()];
    dequantize(tensor.kind()?, file.bytes(tensor), &mut divisors);
    let Some(other) = divisors.iter().find(|&&divisor| divisor != 1.0) else {
        return Ok(declared);
    };
    match llama3(&divisors, theta, head_dim) {
        Some(scaling) if declared.is_null() => Ok(scaling),
        _ => Err(unsupported(
            ROPE_FREQS,
            &format!("{other} among {} divisors", divisors.len()),
            "1 throughout, or those of Llama 3.1 with no other scaling: use the Hugging Face directory of the model",
        )),
    }
}

/// Llama 3's scaling, if these are its divisors.
fn llama3(divisors: &[f32], theta: f64, head_dim: u64) -> Option<Value> {
    let factor = f64::from(*divisors.last()?);
    if divisors.len() as u64 != head_dim / 2 || !FACTORS.contains(&factor) {
        return None;
    }
    let equal = divisors.iter().enumerate().all(|(pair, &divisor)| {
        let wavelength = TAU * theta.powf(2.0 * pair as f64 / head_dim as f64);
        let smooth = ((ORIGINAL / wavelength - LOW) / (HIGH - LOW)).clamp(0.0, 1.0);
        let expected = 1.0 / ((1.0 - smooth) / factor + smooth);
        (f64::from(divisor) / expected - 1.0).abs() <= TOLERANCE
    });
    equal.then(|| {
        json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": LOW, "high_freq_factor": HIGH,
            "original_max_position_embeddings": ORIGINAL as u64,
        })
    })
}

/// Linear interpolation or YaRN as config.json has it, or null. Without a type a factor is that of linear interpolation; files of
/// before have it in `rope.scale_linear`, and 0 is none. What llama.cpp writes in its own measures is brought into those of
/// `transformers`: its attention factor comes on top of `0.1 ln(factor) + 1`.
fn declared(metadata: &Metadata, key: &impl Fn(&str) -> String) -> Result<Value, GgufError> {
    let float = |name: &str| metadata.float(&key(name));
    let name = key("rope.scaling.type");
    let kind = metadata.text(&name)?;
    for name in ATTENTION_FACTORS {
        let got = float(name)?.filter(|&got| got != 1.0 && kind != Some("yarn"));
        if let Some(got) = got {
            let limit = "1, or another with rope.scaling.type yarn";
            return Err(unsupported(&key(name), &got.to_string(), limit));
        }
    }
    if kind == Some("none") {
        return Ok(Value::Null);
    }
    let mut factor = None;
    for name in ["rope.scaling.factor", "rope.scale_linear"] {
        let got = float(name)?;
        if let Some(got) = got.filter(|&got| got != 0.0 && !FACTORS.contains(&got)) {
            let limit = "factors in 1..=268435456, and 0 for none";
            return Err(unsupported(&key(name), &got.to_string(), limit));
        }
        factor = factor.or(got);
    }
    match kind {
        None | Some("linear") => {
            return Ok(match factor.filter(|&factor| factor > 1.0) {
                Some(factor) => json!({ "rope_type": "linear", "factor": factor }),
                None => Value::Null,
            });
        }
        Some("yarn") => {}
        Some(other) => return Err(unsupported(&name, other, "none, linear or yarn")),
    }
    let extrapolation = "rope.scaling.yarn_ext_factor";
    if let Some(got) = float(extrapolation)?.filter(|&got| got != 1.0) {
        return Err(unsupported(&key(extrapolation), &got.to_string(), "1"));
    }
    let factor = required(&key("rope.scaling.factor"), Ok(factor))?;
    let mut scaling = json!({ "rope_type": "yarn", "factor": factor });
    let original = metadata.size(&key("rope.scaling.original_context_length"))?;
    if let Some(original) = original {
        scaling["original_max_position_embeddings"] = original.into();
    }
    let gain = 0.1 * factor.max(1.0).ln() + 1.0;
    for name in ATTENTION_FACTORS {
        if let Some(own) = float(name)? {
            scaling["attention_factor"] = (own * gain).into();
        }
    }
    for name in ["beta_fast", "beta_slow"] {
        if let Some(own) = float(&format!("rope.scaling.yarn_{name}"))? {
            scaling[name] = own.into();
        }
    }
    Ok(scaling)
}
