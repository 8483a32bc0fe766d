//! Blocks of 32 elements with one scale.
//!
//! Four-bit levels lie two to a byte: byte `j` holds element `j` in its low half and element `j + 16` in its high half. Five-bit
//! formats keep the fifth bits in a u32, bit `j` for element `j`. `_0` formats are centred, `_1` formats have a minimum.

use super::half_at;

const HALF: usize = 16;

/// Scale, 16 bytes of levels; x = d * (level - 8).
pub(super) fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for j in 0..HALF {
        let levels = block[2 + j];
        out[j] = d * (i32::from(levels & 0xf) - 8) as f32;
        out[j + HALF] = d * (i32::from(levels >> 4) - 8) as f32;
    }
}

/// Scale, minimum, 16 bytes of levels; x = d * level + m.
pub(super) fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for j in 0..HALF {
        let levels = block[4 + j];
        out[j] = d * f32::from(levels & 0xf) + m;
        out[j + HALF] = d * f32::from(levels >> 4) + m;
    }
}

/// Scale, fifth bits, 16 bytes of levels; x = d * (level - 16).
pub(super) fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    let fifth = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    for j in 0..HALF {
        let (low, high) = five_bits(block[6 + j], fifth, j);
        out[j] = d * (i32::from(low) - 16) as f32;
        out[j + HALF] = d * (i32::from(high) - 16) as f32;
    }
}

/// Scale, minimum, fifth bits, 16 bytes of levels; x = d * level + m.
pub(super) fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    let fifth = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
    for j in 0..HALF {
        let (low, high) = five_bits(block[8 + j], fifth, j);
        out[j] = d * f32::from(low) + m;
        out[j + HALF] = d * f32::from(high) + m;
    }
}

/// Scale, 32 signed bytes; x = d * level.
pub(super) fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (value, &level) in out.iter_mut().zip(&block[2..]) {
        *value = d * f32::from(level as i8);
    }
}

fn five_bits(levels: u8, fifth: u32, j: usize) -> (u8, u8) {
    let bit = |at: usize| ((fifth >> at & 1) as u8) << 4;
    (levels & 0xf | bit(j), levels >> 4 | bit(j + HALF))
}
