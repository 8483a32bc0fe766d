//! Blocks of 256 elements with two or three bits an element (Q2_K, Q3_K).
//!
//! Sixteen sub-blocks of 16, each with a scale. Two bits of every level lie in 64 bytes: the byte at `32 h + i` holds those of the elements
//! `128 h + i + 32 s` for `s` = 0 to 3, lowest bits first.

use super::half_at;

/// 16 bytes of scales (low half) and minima (high half), 64 of levels, d, dmin; x = (d * scale) * level - (dmin * min).
pub(super) fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let (d, dmin) = (half_at(block, 80), half_at(block, 82));
    for (at, value) in out.iter_mut().enumerate() {
        let packed = block[at / 16];
        let scale = d * f32::from(packed & 0xf);
        let minimum = dmin * f32::from(packed >> 4);
        *value = scale * f32::from(two_bits(&block[16..80], at)) - minimum;
    }
}

/// 32 bytes of third bits, 64 of levels, 12 of scales, d; x = (d * (scale - 32)) * level. The third bit of element `32 b + i` is
/// bit `b` of byte `i`; where it is missing, 4 is taken off the level.
pub(super) fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
    let d = half_at(block, 108);
    let mut steps = [0.0; 16];
    for (sub, step) in steps.iter_mut().enumerate() {
        *step = d * f32::from(six_bits(&block[96..108], sub) - 32);
    }
    for (at, value) in out.iter_mut().enumerate() {
        let third = block[at % 32] >> (at / 32) & 1;
        let level = two_bits(&block[32..96], at) as i8 - if third == 0 { 4 } else { 0 };
        *value = steps[at / 16] * f32::from(level);
    }
}

/// The two bits of element `at`.
fn two_bits(levels: &[u8], at: usize) -> u8 {
    let (half, within) = (at / 128, at % 128);
    levels[32 * half + within % 32] >> (2 * (within / 32)) & 3
}

/// The scale of sub-block `sub`: four low bits in bytes 0 to 7, whose high halves belong to the last eight; two high bits in
/// bytes 8 to 11, where four sub-blocks share a byte.
fn six_bits(packed: &[u8], sub: usize) -> i8 {
    let low = packed[sub % 8] >> (4 * (sub / 8)) & 0xf;
    let high = packed[8 + sub % 4] >> (2 * (sub / 4)) & 3;
    (low | high << 4) as i8
}
