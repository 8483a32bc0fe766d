//! Keys and values as signed bytes: four to a `u32` word, the first in its lowest bits, and one scale per
//! token and KV head.
//!
//!   scale = max_d |x_d| / 127      byte_d = round(x_d / scale), halves to even      x'_d = scale byte_d
//!
//! so that `|x_d - x'_d| <= scale / 2`, but for roundings. The division by 127 is a product with the f32
//! nearest to 1 / 127, and elements are multiplied by `1 / scale`, the one division of a row: where a device
//! rounds it to nearest, equal rows give the bits of the CPU path, which has the same formula in the same
//! order. A row whose largest magnitude is below [`LEAST`] is stored as scale 0 and zeros; so `1 / scale` is
//! finite. A row with an element that is no number, or infinite, has scale NaN and zeros: what reads it
//! becomes NaN.
//!
//! Scales are f32, `[B, Hk, 2, S]`: per head those of its keys, then those of its values.

mod dequantize;

pub use dequantize::{Tensors, launch};
pub use sparse_accelerate_contract::CachePart;

use cubecl::{
    client::Client,
    ir::{ElemType, UIntKind},
    prelude::*,
};

use crate::layout;

/// Bytes of a word.
pub const PER_WORD: usize = 4;
/// Magnitude below which a row counts as zeros: 2^-100.
pub const LEAST: f32 = f32::from_bits(LEAST_BITS);
const LEAST_BITS: u32 = (127 - 100) << 23;
/// Bits of infinity; those of NaNs are above.
const INFINITE_BITS: u32 = 0x7f80_0000;
const NAN_BITS: u32 = 0x7fc0_0000;
/// Largest byte.
const MOST: f32 = 127.0;
/// 1.5 * 2^23: a small number added to it is rounded to an integer, which stands in its lowest bits.
const ROUND: f32 = 12_582_912.0;
/// Bits of 2^23, whose low byte counts ones.
const COUNTER_BITS: u32 = 0x4b00_0000;
/// 2^23 + 128.
const COUNTER_ZERO: f32 = 8_388_736.0;

/// The type of words.
pub(crate) const WORD: ElemType = ElemType::UInt(UIntKind::U32);

/// Bits of the largest magnitude of a vector of `width`: they are ordered as the magnitudes are.
#[cube]
pub(crate) fn magnitude<N: Size>(x: Vector<f32, N>, #[comptime] width: usize) -> u32 {
    let mut largest = 0u32;
    #[unroll]
    for e in 0..width {
        largest = max(largest, u32::reinterpret(x.extract(e)) & 0x7fff_ffffu32);
    }
    largest
}

/// Tells whether rows of this magnitude have bytes other than 0.
#[cube]
#[allow(clippy::manual_range_contains)] // device code has no ranges to ask
fn regular(magnitude: u32) -> bool {
    magnitude >= comptime!(LEAST_BITS) && magnitude < comptime!(INFINITE_BITS)
}

/// The scale of a row of this magnitude.
#[cube]
pub(crate) fn scale(magnitude: u32) -> f32 {
    let mut bits = u32::reinterpret(f32::reinterpret(magnitude) * f32::new(MOST.recip()));
    if magnitude < comptime!(LEAST_BITS) {
        bits = 0u32.runtime();
    }
    // Integers, since a compiler may take numbers to be finite.
    if magnitude >= comptime!(INFINITE_BITS) {
        bits = comptime!(NAN_BITS).runtime();
    }
    f32::reinterpret(bits)
}

/// The bytes of a vector of a row of this magnitude.
#[cube]
pub(crate) fn pack<N: Size, M: Size>(
    x: Vector<f32, N>,
    magnitude: u32,
    #[comptime] width: usize,
) -> Vector<u32, M> {
    let mut words = Vector::<u32, M>::new(0u32);
    if regular(magnitude) {
        let inverse = f32::new(1.0) / scale(magnitude);
        #[unroll]
        for w in 0..comptime!(width / PER_WORD) {
            let mut word = 0u32;
            #[unroll]
            for e in 0..comptime!(PER_WORD) {
                let scaled = x.extract(comptime!(w * PER_WORD + e)) * inverse;
                // The bounds also keep the product and the sum apart, each rounded.
                let scaled = min(max(scaled, f32::new(-MOST)), f32::new(MOST));
                let byte = u32::reinterpret(scaled + f32::new(ROUND)) & 0xffu32;
                word |= byte << comptime!(8 * e as u32);
            }
            words.insert(w, word);
        }
    }
    words
}

/// The bytes of words as numbers, not scaled.
#[cube]
pub(crate) fn unpack<M: Size, N: Size>(
    words: Vector<u32, M>,
    #[comptime] width: usize,
) -> Vector<f32, N> {
    let mut out = Vector::<f32, N>::empty();
    #[unroll]
    for w in 0..comptime!(width / PER_WORD) {
        // Counted from -128, a byte is the low end of an f32 between 2^23 and 2^24.
        let counted = words.extract(w) ^ 0x8080_8080u32;
        #[unroll]
        for e in 0..comptime!(PER_WORD) {
            let byte = (counted >> comptime!(8 * e as u32)) & 0xffu32;
            let number = f32::reinterpret(byte | comptime!(COUNTER_BITS));
            out.insert(comptime!(w * PER_WORD + e), number - f32::new(COUNTER_ZERO));
        }
    }
    out
}

/// The largest magnitude of a row whose `parts` units, of which this is number `part`, follow one another
/// in the cube. Every unit of the cube must come.
#[cube]
pub(crate) fn row_magnitude(
    own: u32,
    part: usize,
    #[comptime] parts: usize,
    #[comptime] units: usize,
) -> u32 {
    let mut all = Shared::<[u32]>::new_slice(units);
    let unit = UNIT_POS as usize;
    all[unit] = own;
    sync_cube();
    // A unit past the last row has no part.
    let first = unit - min(part, unit);
    let mut largest = own;
    for i in 0..parts {
        largest = max(largest, all[min(first + i, comptime!(units - 1))]);
    }
    largest
}

/// Units of a cube that hold whole rows of `parts` units.
pub(crate) fn units_of_rows(parts: usize) -> usize {
    layout::UNITS as usize / parts * parts
}

/// Cubes for `total` units in rows of `parts`, no row of which lies in two cubes.
pub(crate) fn row_cubes(client: &Client, total: usize, parts: usize) -> (CubeCount, CubeDim) {
    let cubes = total.div_ceil(units_of_rows(parts));
    layout::cubes(client, cubes, layout::UNITS as usize)
}
