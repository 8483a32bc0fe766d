//! Scores and shares of attention as integers, so that every device computes the same bits.

/// 1 in units of 2^-24: shares in this unit are exact in f32.
pub(super) const ONE: u32 = 1 << 24;

/// A score, at most 1. What is no positive normal number (NaN, infinities, negative or subnormal numbers)
/// is 0.
pub(super) fn score(value: f32) -> f32 {
    match value.is_normal() && value > 0.0 {
        true => value.min(1.0),
        false => 0.0,
    }
}

/// A score in units of 2^-`bits`, rounded half up.
pub(super) fn fixed(score: f32, bits: i32) -> u32 {
    (f64::from(score) * 2f64.powi(bits) + 0.5).floor() as u32
}

/// The f32 of a value in units of 2^-24, at most 1; exact.
pub(super) fn share(fixed: u32) -> f32 {
    fixed as f32 / ONE as f32
}

/// `part / whole` in units of 2^-24, rounded down; at most 1, and 0 of an empty whole.
pub(super) fn ratio(part: u32, whole: u32) -> u32 {
    match whole {
        0 => 0,
        _ => ((u64::from(part.min(whole)) << 24) / u64::from(whole)) as u32,
    }
}

/// `share * value / 2^24`, rounded down; `share` at most 2^24.
pub(super) fn scaled(share: u32, value: u32) -> u32 {
    ((u64::from(share) * u64::from(value)) >> 24) as u32
}

/// The share of the blocks' mass that lifts `covered` to `floor`, in units of 2^-24.
pub(super) fn missing(floor: u32, covered: u32) -> u32 {
    match floor > covered {
        true => ratio(floor - covered, ONE - covered),
        false => 0,
    }
}
