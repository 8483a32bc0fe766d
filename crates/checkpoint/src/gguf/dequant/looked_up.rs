//! Blocks whose four-bit levels are places in a table of unequal steps (IQ4_NL, IQ4_XS).
//!
//! Levels lie as in Q4_0: byte `j` of a run of 32 elements holds element `j` in its low half and element `j + 16` in its high half.

use super::half_at;

/// Value of each level: finer near zero, where most weights are. Part of the formats.
const STEPS: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// Scale, 16 bytes of levels; x = d * step.
pub(super) fn iq4_nl(block: &[u8; 18], out: &mut [f32; 32]) {
    run(half_at(block, 0), &block[2..], out);
}

/// d, the high bits of eight scales, four bytes of their low bits, 128 bytes of levels; x = (d * (scale - 32)) * step. Each scale
/// serves 32 elements: its four low bits are half a byte, its two high bits lie in a u16.
pub(super) fn iq4_xs(block: &[u8; 136], out: &mut [f32; 256]) {
    let d = half_at(block, 0);
    let high = u16::from_le_bytes([block[2], block[3]]);
    for (sub, target) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let low = block[4 + sub / 2] >> (4 * (sub % 2)) & 0xf;
        let scale = i16::from(low) | ((high >> (2 * sub) & 3) << 4) as i16;
        run(
            d * f32::from(scale - 32),
            &block[8 + 16 * sub..][..16],
            target,
        );
    }
}

/// 32 elements of one scale.
fn run(scale: f32, levels: &[u8], out: &mut [f32; 32]) {
    let (low, high) = out.split_at_mut(16);
    for ((&pair, low), high) in levels.iter().zip(low).zip(high) {
        *low = scale * f32::from(STEPS[usize::from(pair & 0xf)]);
        *high = scale * f32::from(STEPS[usize::from(pair >> 4)]);
    }
}
