//! Keys and values that come while the step before is computed, where the device copies on its own.

use cubecl::prelude::*;

use super::RowsBlueprint;
use crate::{
    attend::mma::copy::{commit, copy_16, wait},
    select::pack::Pack,
};

/// Begins to copy the rows of the step from key `at` on to shared memory at address `base`, one group of copies, none from
/// `until` on; rows past the sequence become zeros.
#[cube]
pub(super) fn begin<E: Float, N: Size>(
    from: &Tensor<Vector<E, N>>,
    base: u32,
    pack: &Pack,
    at: u32,
    until: u32,
    #[comptime] bp: RowsBlueprint,
) {
    let tile = comptime!(bp.tile());
    let (width, units) = comptime!((tile.width(), tile.units()));
    let total = comptime!(tile.keys() * tile.chunk);
    if at < until {
        let first =
            (pack.b as usize * from.stride(0) + pack.kv_head as usize * from.stride(1)) / width;
        let stride = from.stride(2) / width;
        #[unroll]
        for i in 0..comptime!(total.div_ceil(units)) {
            let slot = UNIT_POS as usize + i * units;
            let (row, v) = (slot / comptime!(tile.chunk), slot % comptime!(tile.chunk));
            if comptime!((i + 1) * units <= total) || slot < total {
                let position = at + row as u32;
                let seen = position < pack.span.kv_len && v < comptime!(tile.vectors());
                // Of 0 bytes nothing is read, and zeros are written.
                let bytes = u32::cast_from(seen) * 16;
                let target = base + ((row * comptime!(tile.pitch()) + v) * 16) as u32;
                copy_16(from, first + position as usize * stride + v, target, bytes);
            }
        }
    }
    commit();
}

/// Waits until all copies of the cube but those of the newest `newer` groups have landed, and until every unit has come
/// this far.
#[cube]
pub(super) fn land(#[comptime] newer: u32) {
    wait(newer);
    sync_cube();
}
