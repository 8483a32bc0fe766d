//! Blocks of quantised weights to f32, by the definition of each format.
//!
//! Scales are f16. All arithmetic is f32 in the order the formats' own runtime uses (scale times sub-scale first, then times
//! the level, then the offset; no fused multiply-add), so results are equal to it bit for bit.

mod k_blocks;
mod looked_up;
mod low_blocks;
mod plain;
mod small_blocks;
#[cfg(test)]
mod tests;

use super::kind::Kind;

/// Dequantises whole blocks: `bytes` holds `out.len()` elements of `kind`. Elements beyond either length are left alone.
pub(super) fn dequantize(kind: Kind, bytes: &[u8], out: &mut [f32]) {
    match kind {
        Kind::F32 => each(bytes, out, plain::f32_element),
        Kind::F16 => each(bytes, out, plain::f16_element),
        Kind::Bf16 => each(bytes, out, plain::bf16_element),
        Kind::Q4_0 => each(bytes, out, small_blocks::q4_0),
        Kind::Q4_1 => each(bytes, out, small_blocks::q4_1),
        Kind::Q5_0 => each(bytes, out, small_blocks::q5_0),
        Kind::Q5_1 => each(bytes, out, small_blocks::q5_1),
        Kind::Q8_0 => each(bytes, out, small_blocks::q8_0),
        Kind::Q2K => each(bytes, out, low_blocks::q2_k),
        Kind::Q3K => each(bytes, out, low_blocks::q3_k),
        Kind::Q4K => each(bytes, out, k_blocks::q4_k),
        Kind::Q5K => each(bytes, out, k_blocks::q5_k),
        Kind::Q6K => each(bytes, out, k_blocks::q6_k),
        Kind::Iq4Nl => each(bytes, out, looked_up::iq4_nl),
        Kind::Iq4Xs => each(bytes, out, looked_up::iq4_xs),
    }
}

fn each<const BYTES: usize, const ELEMENTS: usize>(
    bytes: &[u8],
    out: &mut [f32],
    block: impl Fn(&[u8; BYTES], &mut [f32; ELEMENTS]),
) {
    let (blocks, _) = bytes.as_chunks::<BYTES>();
    let (targets, _) = out.as_chunks_mut::<ELEMENTS>();
    for (source, target) in blocks.iter().zip(targets) {
        block(source, target);
    }
}

/// The f16 that begins at byte `at` of a block.
fn half_at(block: &[u8], at: usize) -> f32 {
    half::f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}
