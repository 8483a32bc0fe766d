//! Numbers of the selection on a device: scores and shares of attention, read as the bits of f32 and
//! computed with as integers.
//!
//! Compilers of shaders may contract, flush, or suppose that there are no NaNs. None of that reaches
//! integers: equal bits in give equal bits out on every device and on the host.

use cubecl::prelude::*;

/// 1 in units of 2^-24: shares in this unit are exact in f32.
pub(super) const ONE: u32 = 1 << 24;
/// Extra bits of the sums of many small shares, which are in units of 2^-28.
pub(super) const SUM_EXTRA: u32 = 4;
/// The bits of +infinity.
pub(super) const INFINITY: u32 = 0x7f80_0000;

const SMALLEST_NORMAL: u32 = 0x0080_0000;
const ONE_BITS: u32 = 0x3f80_0000;

/// A score's bits, at most those of 1. What is no positive normal number (NaN, infinities, negative or
/// subnormal numbers) is 0. Bits of scores order as the scores do.
#[cube]
#[allow(clippy::manual_range_contains)] // device code has no ranges
pub(super) fn score(bits: u32) -> u32 {
    let mut score = 0u32;
    if bits >= SMALLEST_NORMAL && bits < INFINITY {
        score = min(bits, ONE_BITS);
    }
    score
}

/// A score in units of `2^-(24 + extra)`, rounded half up; `extra` at most 7.
#[cube]
pub(super) fn fixed(score: u32, #[comptime] extra: u32) -> u32 {
    let mut value = 0u32;
    if score > 0 {
        let mantissa = ((score & 0x007f_ffff) | SMALLEST_NORMAL) << extra;
        // A score is at most 1, whose exponent is 127: the shift is -1 there and 0 for [1/2, 1).
        let exponent = score >> 23;
        if exponent >= 127 {
            value = mantissa << 1;
        } else {
            let shift = 126 - exponent;
            if shift < 31 {
                value = (mantissa + ((1 << shift) >> 1)) >> shift;
            }
        }
    }
    value
}

/// The f32 of a value in units of 2^-24, at most 1; exact.
#[cube]
pub(super) fn share(fixed: u32) -> f32 {
    f32::cast_from(fixed) * comptime!(1.0f32 / 16_777_216.0)
}

/// A count as an f32 without rounding: its low 8 bits are dropped from 2^24 on.
#[cube]
pub(super) fn exact(count: u32) -> f32 {
    let mut kept = count;
    if count >= ONE {
        kept = count & 0xffff_ff00;
    }
    f32::cast_from(kept)
}

/// `part / whole` in units of 2^-24, rounded down; at most 1, and 0 of an empty whole. Both at most 2^24.
#[cube]
pub(super) fn ratio(part: u32, whole: u32) -> u32 {
    let mut quotient = 0u32;
    if whole > 0 {
        if part >= whole {
            quotient = ONE.runtime();
        } else {
            let mut rest = part;
            for _ in 0..24u32 {
                rest <<= 1;
                quotient <<= 1;
                if rest >= whole {
                    rest -= whole;
                    quotient += 1;
                }
            }
        }
    }
    quotient
}

/// `share * value / 2^24`, rounded down; `share` at most 2^24.
#[cube]
pub(super) fn scaled(share: u32, value: u32) -> u32 {
    let (share_high, share_low) = (share >> 16, share & 0xffff);
    let (value_high, value_low) = (value >> 16, value & 0xffff);
    let low = share_low * value_low;
    let first = share_low * value_high + (low >> 16);
    let second = share_high * value_low + (first & 0xffff);
    let high = share_high * value_high + (first >> 16) + (second >> 16);
    (high << 8) | ((second & 0xffff) >> 8)
}

/// The share that a variant must find among blocks: that of their mass that lifts `covered` to `floor`,
/// `(floor - covered) / (1 - covered)`, in units of 2^-24 and rounded down; 0 if it is there already.
#[cube]
pub(super) fn missing(floor: u32, covered: u32) -> u32 {
    let mut share = 0u32;
    if floor > covered {
        share = ratio(floor - covered, ONE - covered);
    }
    share
}
