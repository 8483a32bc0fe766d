//! Rotary positions of a Phi-3: the rotated part of a head, and LongRoPE.
//!
//! GGUF keeps LongRoPE's two lists of divisors as tensors of f32, the length up to which the short one holds as a key, and what follows
//! from the lengths, the attention factor, as another. config.json has the lists and the length: the rest must agree with what follows.

use std::ops::RangeInclusive;

use serde_json::{Value, json};

use super::names::{LONG_FACTORS, ROPE_FREQS, SHORT_FACTORS};
use super::rope;
use crate::GgufError;
use crate::gguf::GgufFile;
use crate::gguf::dequant::dequantize;

/// Elements of a head that are rotated.
pub(super) const ROTATED: &str = "rope.dimension_count";
/// Length up to which the short divisors hold.
pub(super) const ORIGINAL: &str = "rope.scaling.original_context_length";
const TYPE: &str = "rope.scaling.type";
const ATTENTION: &str = "rope.scaling.attn_factor";
/// Stretches of the other scalings.
const STRETCHES: [&str; 2] = ["rope.scaling.factor", "rope.scale_linear"];

const LENGTHS: RangeInclusive<u64> = 2..=268_435_456;
/// Relative error by which an attention factor may differ: files have it in f32.
const TOLERANCE: f64 = 1e-6;
const WAY_OUT: &str =
    "convert the model again with a current converter, or use its Hugging Face directory";

/// Checks the rotated part of a head: pairs, and no more of them than there are.
pub(super) fn check_rotated(
    key: &impl Fn(&str) -> String,
    rotated: u64,
    head_dim: u64,
) -> Result<(), GgufError> {
    match rotated >= 2 && rotated.is_multiple_of(2) && rotated <= head_dim {
        true => Ok(()),
        false => {
            let expected = format!("an even number in 2..={head_dim}, the size of a head");
            Err(contradiction(&key(ROTATED), rotated, expected))
        }
    }
}

/// The share of a head for config.json, of which its readers take whole elements, rounded down.
pub(super) fn share(rotated: u64, head_dim: u64) -> f64 {
    let share = rotated as f64 / head_dim as f64;
    match (head_dim as f64 * share) as u64 >= rotated {
        true => share,
        false => share.next_up(),
    }
}

/// The value of `rope_scaling` for a model that rotates `rotated` elements of a head, null for none.
pub(super) fn scaling(
    file: &GgufFile,
    key: &impl Fn(&str) -> String,
    theta: f64,
    rotated: u64,
    context: u64,
) -> Result<Value, GgufError> {
    let short = factors(file, SHORT_FACTORS, rotated)?;
    let long = factors(file, LONG_FACTORS, rotated)?;
    let (short, long) = match (short, long) {
        (Some(short), Some(long)) => (short, long),
        (None, None) => return without(file, key, theta, rotated),
        (short, _) => {
            let (absent, there) = match short {
                Some(_) => (LONG_FACTORS, SHORT_FACTORS),
                None => (SHORT_FACTORS, LONG_FACTORS),
            };
            let expected = format!("{} divisors beside {there}", rotated / 2);
            return Err(contradiction(absent, "missing", expected));
        }
    };
    refuse_others(file, key)?;
    let original = match file.metadata.size(&key(ORIGINAL))? {
        Some(original) if LENGTHS.contains(&original) => original,
        got => {
            let got = got.map_or("missing".to_owned(), |got| got.to_string());
            let (least, most) = LENGTHS.into_inner();
            let expected =
                format!("a length in {least}..={most} up to which {SHORT_FACTORS} holds");
            return Err(contradiction(&key(ORIGINAL), got, expected));
        }
    };
    let stretch = (context as f64 / original as f64).max(1.0);
    let implied = (1.0 + stretch.ln() / (original as f64).ln()).sqrt();
    let agrees = |got: &f64| (got / implied - 1.0).abs() <= TOLERANCE;
    let got = file.metadata.float(&key(ATTENTION))?;
    if !got.as_ref().is_some_and(agrees) {
        let got = got.map_or("missing".to_owned(), |got| got.to_string());
        let expected = format!(
            "{implied} to 1 part in 1,000,000, as lengths of {original} and {context} tokens imply"
        );
        return Err(contradiction(&key(ATTENTION), got, expected));
    }
    Ok(json!({ "type": "longrope", "short_factor": short, "long_factor": long }))
}

/// The scaling of a file that has no divisors.
fn without(
    file: &GgufFile,
    key: &impl Fn(&str) -> String,
    theta: f64,
    rotated: u64,
) -> Result<Value, GgufError> {
    let kind = file.metadata.text(&key(TYPE))?;
    if kind == Some("longrope") {
        let expected = format!("{SHORT_FACTORS} and {LONG_FACTORS} beside it, which are missing");
        return Err(contradiction(&key(TYPE), "longrope", expected));
    }
    let got = file.metadata.float(&key(ATTENTION))?;
    if let Some(got) = got.filter(|&got| got != 1.0 && kind != Some("yarn")) {
        let expected = format!("1 without {SHORT_FACTORS} and {LONG_FACTORS}");
        return Err(contradiction(&key(ATTENTION), got, expected));
    }
    rope::scaling(file, key, theta, rotated)
}

/// Refuses another scaling beside LongRoPE's.
fn refuse_others(file: &GgufFile, key: &impl Fn(&str) -> String) -> Result<(), GgufError> {
    let beside = format!("beside {SHORT_FACTORS} and {LONG_FACTORS}");
    let kind = file.metadata.text(&key(TYPE))?;
    if let Some(kind) = kind.filter(|&kind| kind != "longrope") {
        let expected = format!("longrope, or no type, {beside}");
        return Err(contradiction(&key(TYPE), kind, expected));
    }
    for name in STRETCHES {
        let got = file.metadata.float(&key(name))?;
        if let Some(got) = got.filter(|&got| got != 0.0 && got != 1.0) {
            let expected = format!("1, or 0 for none, {beside}");
            return Err(contradiction(&key(name), got, expected));
        }
    }
    match file.tensors.iter().any(|tensor| tensor.name == ROPE_FREQS) {
        true => Err(contradiction(
            ROPE_FREQS,
            "there",
            format!("no third list of divisors {beside}"),
        )),
        false => Ok(()),
    }
}

/// The divisors of a tensor, one a pair of rotated elements, if the file has it. What f32 holds is kept to its last digit.
fn factors(file: &GgufFile, name: &str, rotated: u64) -> Result<Option<Vec<f64>>, GgufError> {
    let mut tensors = file.tensors.iter();
    let Some(tensor) = tensors.find(|tensor| tensor.name == name) else {
        return Ok(None);
    };
    if tensor.dims != [rotated / 2] {
        let expected = format!(
            "[{}], one a pair of {rotated} rotated elements",
            rotated / 2
        );
        let got = format!("{:?}", tensor.dims);
        return Err(contradiction(name, got, expected));
    }
    let kind = tensor.kind()?;
    let mut divisors = vec![0.0; tensor.shape().iter().product()];
    dequantize(kind, file.bytes(tensor), &mut divisors);
    let sound = |divisor: &f32| divisor.is_finite() && *divisor > 0.0;
    if let Some((pair, got)) = divisors.iter().enumerate().find(|(_, d)| !sound(d)) {
        let got = format!("{got} for pair {pair}");
        return Err(contradiction(name, got, "numbers above zero".to_owned()));
    }
    Ok(Some(divisors.into_iter().map(f64::from).collect()))
}

fn contradiction(key: &str, got: impl ToString, expected: String) -> GgufError {
    GgufError::Contradiction {
        key: key.to_owned(),
        got: got.to_string().chars().take(80).collect(),
        expected,
        way_out: WAY_OUT,
    }
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn shares_of_heads_give_back_every_number_of_elements() {
        for head_dim in (32..=256_u64).step_by(8) {
            for rotated in (2..=head_dim).step_by(2) {
                let share = share(rotated, head_dim);
                assert!(share <= 1.0);
                assert_eq!((head_dim as f64 * share) as u64, rotated, "of {head_dim}");
            }
        }
    }
}
