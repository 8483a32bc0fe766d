//! Keys and values, from memory to registers and from there to f32.
//!
//! They are loaded as `T`: `u32` words of four bytes, or of two elements where a load has several of them,
//! the element type otherwise. The compiler unpacks 16-bit values that live from one step to the next as soon as they are
//! loaded, and waits for them; words it keeps.

use cubecl::prelude::*;

use super::SplitKBlueprint;
use crate::{
    int8::{self, CachePart},
    table::{Items, KvRows, Place},
};

/// The slots of an item that a split takes, `sets * keys` a step.
#[derive(CubeType)]
pub(super) struct Slots {
    /// End of the slots.
    pub(super) end: u32,
    /// They are entries of the column list instead of key positions.
    pub(super) gathered: bool,
    columns_at: u32,
    set: u32,
}

#[cube]
impl Slots {
    /// The slots of an item up to `end`, for the units of a set.
    pub(super) fn new(items: &Items, end: u32, gathered: bool, set: u32) -> Slots {
        Slots {
            end,
            gathered,
            columns_at: items.columns_at,
            set,
        }
    }

    /// Slot of the set's key number `u` of the step at `at`.
    pub(super) fn slot(
        &self,
        at: u32,
        #[comptime] u: usize,
        #[comptime] bp: SplitKBlueprint,
    ) -> u32 {
        at + u32::cast_from(comptime!(u * bp.sets)) + self.set
    }

    /// Position of the key in that slot; past the end, of the last one.
    // A comptime condition is an `if` of its own: it decides what is compiled.
    #[allow(clippy::collapsible_if)]
    pub(super) fn position(
        &self,
        table: &[u32],
        at: u32,
        #[comptime] u: usize,
        #[comptime] bp: SplitKBlueprint,
    ) -> u32 {
        let slot = min(self.slot(at, u, bp), self.end - 1);
        let mut position = slot;
        if comptime!(bp.indexed) {
            if self.gathered {
                position = table[(self.columns_at + slot) as usize];
            }
        }
        position
    }
}

/// Keys or values of the cube's KV head, and the vectors of a row that are a unit's.
#[derive(CubeType)]
pub(super) struct Source {
    rows: KvRows,
    scales_at: usize,
    columns: Array<usize>,
}

#[cube]
impl Source {
    /// Finds keys or values, and their scales where they are int8.
    pub(super) fn new<T: Numeric, M: Size>(
        from: &Tensor<Vector<T, M>>,
        scales: &ComptimeOption<&Tensor<f32>>,
        place: &Place,
        lane: u32,
        #[comptime] part: CachePart,
        #[comptime] bp: SplitKBlueprint,
    ) -> Source {
        let mut columns = Array::<usize>::new(comptime!(bp.vectors()));
        #[unroll]
        for i in 0..comptime!(bp.vectors()) {
            let column = comptime!(i * bp.lanes) + lane as usize;
            columns[i] = min(column, comptime!(bp.head_dim / bp.width - 1));
        }
        let mut scales_at = 0usize;
        #[comptime]
        match scales {
            ComptimeOption::Some(scales) => {
                let first =
                    place.b as usize * scales.stride(0) + place.kv_head as usize * scales.stride(1);
                scales_at = first + comptime!(part.index()) * scales.stride(2);
            }
            ComptimeOption::None => {}
        }
        Source {
            rows: KvRows::new(from, place, comptime!(bp.stride_width())),
            scales_at,
            columns,
        }
    }

    /// Loads a unit's vectors of the step's keys or values; past the end, of the last one again.
    pub(super) fn load<T: Numeric, M: Size>(
        &self,
        from: &Tensor<Vector<T, M>>,
        to: &mut Array<Vector<T, M>>,
        table: &[u32],
        slots: &Slots,
        at: u32,
        #[comptime] bp: SplitKBlueprint,
    ) {
        #[unroll]
        for u in 0..comptime!(bp.keys) {
            let position = slots.position(table, at, u, bp) as usize;
            let row = self.rows.first + position * self.rows.stride;
            #[unroll]
            for i in 0..comptime!(bp.vectors()) {
                to[comptime!(u * bp.vectors() + i)] = from[row + self.columns[i]];
            }
        }
    }

    /// Loads the scales of the step's keys or values.
    pub(super) fn load_scales(
        &self,
        from: &ComptimeOption<&Tensor<f32>>,
        to: &mut Array<f32>,
        table: &[u32],
        slots: &Slots,
        at: u32,
        #[comptime] bp: SplitKBlueprint,
    ) {
        #[comptime]
        match from {
            ComptimeOption::Some(from) =>
            {
                #[unroll]
                for u in 0..comptime!(bp.keys) {
                    to[u] = from[self.scales_at + slots.position(table, at, u, bp) as usize];
                }
            }
            ComptimeOption::None => {}
        }
    }
}

/// A loaded vector in f32, bytes not scaled. A bf16 is the upper half of an f32.
#[cube]
pub(super) fn widen<T: Numeric, M: Size, E: Float, N: Size>(
    x: Vector<T, M>,
    #[comptime] bp: SplitKBlueprint,
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
