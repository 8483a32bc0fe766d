//! Moving rows of Q, K and V into shared memory, 16 bytes a unit.

use cubecl::{
    prelude::barrier::{copy_async, copy_async_checked},
    prelude::*,
};

use super::{MmaBlueprint, VECTOR};

/// Where the rows of one head lie: first vector, vectors from row to row.
#[derive(CubeType)]
pub(super) struct Rows {
    pub(super) first: usize,
    pub(super) stride: usize,
}

/// Copies the keys or values of the slots `[at, at + keys)` to `tile[tile_at..]`; slots from `end` on
/// become zeros, since what lies past a sequence may be anything.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn stage<E: Float, N: Size>(
    from: &Tensor<Vector<E, N>>,
    rows: &Rows,
    tile: &mut Shared<[Vector<E, N>]>,
    tile_at: usize,
    positions: &Shared<[u32]>,
    positions_at: usize,
    at: u32,
    end: u32,
    gathered: bool,
    #[comptime] bp: MmaBlueprint,
) {
    let unit = UNIT_POS as usize;
    let units = comptime!(bp.units());
    let vectors = comptime!(bp.vectors());
    let total = comptime!(bp.keys * bp.vectors());
    let whole = at + u32::cast_from(comptime!(bp.keys)) <= end;
    #[unroll]
    for i in 0..comptime!(total.div_ceil(units)) {
        let slot = unit + i * units;
        let (row, vector) = (slot / vectors, slot % vectors);
        if comptime!((i + 1) * units <= total) || slot < total {
            let mut position = at + u32::cast_from(row);
            let seen = whole || position < end;
            if comptime!(bp.columns) {
                if gathered && seen {
                    position = positions[positions_at + row];
                }
            }
            let source = rows.first + position as usize * rows.stride + vector;
            let target = tile_at + row * comptime!(bp.pitch()) + vector;
            if comptime!(bp.asynchronous) {
                if whole {
                    copy_async(
                        &from[source..source + 1],
                        &mut tile[target..target + 1],
                        comptime!(VECTOR as u32),
                    );
                } else {
                    // A length of 0 reads nothing and writes zeros.
                    let mut length = 0usize;
                    if seen {
                        length = 1;
                    }
                    copy_async_checked(
                        &from[source..source + length],
                        &mut tile[target..target + 1],
                        comptime!(VECTOR as u32),
                    );
                }
            } else {
                let mut loaded = Vector::<E, N>::new(E::from_int(0));
                if seen {
                    loaded = from[source];
                }
                tile[target] = loaded;
            }
        }
    }
}

/// Zeros the vector that pads a row to the depth of the matrix instruction, in every staged K row and
/// in Q; copies never touch it.
#[cube]
pub(super) fn pad<E: Float, N: Size>(
    tile: &mut Shared<[Vector<E, N>]>,
    first: usize,
    #[comptime] rows: usize,
    #[comptime] bp: MmaBlueprint,
) {
    if comptime!(bp.vectors() < bp.padded()) {
        let units = comptime!(bp.units());
        #[unroll]
        for i in 0..comptime!(rows.div_ceil(units)) {
            let row = UNIT_POS as usize + i * units;
            if row < rows {
                tile[first + row * comptime!(bp.pitch()) + comptime!(bp.vectors())] =
                    Vector::new(E::from_int(0));
            }
        }
    }
}

/// Ends this unit's group of asynchronous copies.
#[cube]
pub(super) fn commit() {
    gpu_asm!("cp.async.commit_group;");
}

/// Waits for all of this unit's asynchronous copies.
#[cube]
pub(super) fn wait() {
    gpu_asm!("cp.async.wait_group 0;");
}
