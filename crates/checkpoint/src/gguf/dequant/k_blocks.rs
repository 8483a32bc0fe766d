//! Blocks of 256 elements with scales of scales ("K" formats), four bits and more.
//!
//! Q4_K and Q5_K: eight sub-blocks of 32, each with a 6-bit scale and a 6-bit minimum packed into 12 bytes. Q6_K: sixteen
//! sub-blocks of 16, each with an 8-bit signed scale. Levels lie in runs of 64 (Q4_K, Q5_K) or 128 (Q6_K) elements.

use super::half_at;

/// d, dmin, 12 bytes of scales, 128 bytes of levels; x = (d * scale) * level - (dmin * min).
pub(super) fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let steps = steps(block);
    for (run, target) in out.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        let levels = &block[16 + 32 * run..][..32];
        let (low, high) = (steps[2 * run], steps[2 * run + 1]);
        for (i, &level) in levels.iter().enumerate() {
            target[i] = low.apply(level & 0xf);
            target[32 + i] = high.apply(level >> 4);
        }
    }
}

/// Q5_K block: Q4_K with 32 bytes of fifth bits before the levels: bit `s` of byte `i` belongs to element `i` of sub-block `s`.
pub(super) fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let steps = steps(block);
    let fifth = &block[16..48];
    for (run, target) in out.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        let levels = &block[48 + 32 * run..][..32];
        let (low, high) = (2 * run, 2 * run + 1);
        for (i, &level) in levels.iter().enumerate() {
            target[i] = steps[low].apply(level & 0xf | (fifth[i] >> low & 1) << 4);
            target[32 + i] = steps[high].apply(level >> 4 | (fifth[i] >> high & 1) << 4);
        }
    }
}

/// 128 bytes of low bits, 64 of high bits, 16 scales, d; x = (d * scale) * (level - 32).
pub(super) fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = half_at(block, 208);
    for (run, target) in out.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        let low = &block[64 * run..][..64];
        let high = &block[128 + 32 * run..][..32];
        let scales = &block[192 + 8 * run..][..8];
        for (quarter, part) in target.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (i, value) in part.iter_mut().enumerate() {
                let byte = low[i + 32 * (quarter & 1)];
                let nibble = if quarter < 2 { byte & 0xf } else { byte >> 4 };
                let level = nibble | (high[i] >> (2 * quarter) & 3) << 4;
                let scale = d * f32::from(scales[2 * quarter + i / 16] as i8);
                *value = scale * (i32::from(level) - 32) as f32;
            }
        }
    }
}

/// Scale and offset of one sub-block.
#[derive(Clone, Copy, Default)]
struct Step {
    scale: f32,
    minimum: f32,
}

impl Step {
    fn apply(self, level: u8) -> f32 {
        self.scale * f32::from(level) - self.minimum
    }
}

/// Unpacks the 6-bit scales and minima at bytes 4..16. The first four sub-blocks have theirs in the low six bits of bytes 0..4
/// and 4..8; the last four have their low four bits in bytes 8..12 and their high two bits on top of the first eight.
fn steps(block: &[u8]) -> [Step; 8] {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let packed = &block[4..16];
    let mut steps = [Step::default(); 8];
    for (j, step) in steps.iter_mut().enumerate() {
        let (scale, minimum) = if j < 4 {
            (packed[j] & 63, packed[j + 4] & 63)
        } else {
            let both = packed[j + 4];
            (
                both & 0xf | packed[j - 4] >> 6 << 4,
                both >> 4 | packed[j] >> 6 << 4,
            )
        };
        *step = Step {
            scale: d * f32::from(scale),
            minimum: dmin * f32::from(minimum),
        };
    }
    steps
}
