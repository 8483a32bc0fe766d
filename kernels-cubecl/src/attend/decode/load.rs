//! Keys and values, from memory to registers and from there to f32.
//!
//! They are loaded as `T`: `u32` words of four bytes, or of two elements where a load has several of them,
//! the element type otherwise. The compiler unpacks 16-bit values that live from one step to the next as soon as they are
//! loaded, and waits for them; words it keeps.

use cubecl::prelude::*;

use super::DecodeBlueprint;
use crate::int8;

/// Loads a unit's vectors of the step's keys or values; past the end, of the last one again.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn load<T: Numeric, M: Size>(
    from: &Tensor<Vector<T, M>>,
    to: &mut Array<Vector<T, M>>,
    table: &[u32],
    columns: &Array<usize>,
    base: usize,
    stride: usize,
    at: u32,
    set: u32,
    end: u32,
    gathered: bool,
    columns_at: u32,
    #[comptime] bp: DecodeBlueprint,
) {
    #[unroll]
    for u in 0..comptime!(bp.keys) {
        let row = base + position(table, at, set, end, gathered, columns_at, u, bp) * stride;
        #[unroll]
        for i in 0..comptime!(bp.vectors()) {
            to[comptime!(u * bp.vectors() + i)] = from[row + columns[i]];
        }
    }
}

/// Loads the scales of the step's keys or values; `base` is that of the first token.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn load_scales(
    from: &ComptimeOption<&Tensor<f32>>,
    to: &mut Array<f32>,
    table: &[u32],
    base: usize,
    at: u32,
    set: u32,
    end: u32,
    gathered: bool,
    columns_at: u32,
    #[comptime] bp: DecodeBlueprint,
) {
    #[comptime]
    match from {
        ComptimeOption::Some(from) =>
        {
            #[unroll]
            for u in 0..comptime!(bp.keys) {
                to[u] = from[base + position(table, at, set, end, gathered, columns_at, u, bp)];
            }
        }
        ComptimeOption::None => {}
    }
}

/// Where the unit's key number `u` of the step lies; past the end, the last one.
#[cube]
#[allow(clippy::too_many_arguments, clippy::collapsible_if)]
pub(super) fn position(
    table: &[u32],
    at: u32,
    set: u32,
    end: u32,
    gathered: bool,
    columns_at: u32,
    #[comptime] u: usize,
    #[comptime] bp: DecodeBlueprint,
) -> usize {
    let slot = min(at + u32::cast_from(comptime!(u * bp.sets)) + set, end - 1);
    let mut position = slot;
    if comptime!(bp.indexed) {
        if gathered {
            position = table[(columns_at + slot) as usize];
        }
    }
    position as usize
}

/// A loaded vector in f32, bytes not scaled. A bf16 is the upper half of an f32.
#[cube]
pub(super) fn widen<T: Numeric, M: Size, E: Float, N: Size>(
    x: Vector<T, M>,
    #[comptime] bp: DecodeBlueprint,
) -> Vector<f32, N> {
    if comptime!(bp.int8) {
        int8::unpack::<M, N>(Vector::<u32, M>::reinterpret(x), comptime!(bp.width))
    } else if comptime!(bp.words && bp.bfloat) {
        let words = Vector::<u32, M>::reinterpret(x);
        let mut wide = Vector::<f32, N>::empty();
        #[unroll]
        for i in 0..comptime!(bp.width / 2) {
            let word = words.extract(i);
            wide.insert(comptime!(2 * i), f32::reinterpret(word << 16));
            wide.insert(
                comptime!(2 * i + 1),
                f32::reinterpret(word & 0xffff_0000u32),
            );
        }
        wide
    } else if comptime!(bp.words) {
        Vector::cast_from(Vector::<E, N>::reinterpret(x))
    } else {
        Vector::cast_from(x)
    }
}
