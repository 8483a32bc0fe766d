//! Plain floats, as blocks of one element.
//!
//! F32, F16 and BF16, little endian; all three convert to f32 exactly.

use half::bf16;

use super::half_at;

pub(super) fn f32_element(block: &[u8; 4], out: &mut [f32; 1]) {
    out[0] = f32::from_le_bytes(*block);
}

pub(super) fn f16_element(block: &[u8; 2], out: &mut [f32; 1]) {
    out[0] = half_at(block, 0);
}

pub(super) fn bf16_element(block: &[u8; 2], out: &mut [f32; 1]) {
    out[0] = bf16::from_le_bytes(*block).to_f32();
}
