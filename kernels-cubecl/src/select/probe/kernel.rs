//! The common part of both passes: stage the tile of keys once, then rows and scores of one row tile after another.

use cubecl::prelude::*;

use super::{ProbeBlueprint, rows};
use crate::select::{
    pack::{NOWHERE, Pack},
    product::{self, Sums},
};

/// Stages the vectors of chunk `chunk` of the tile's keys; keys past the sequence become zeros, since what
/// lies there may be anything.
#[cube]
pub(in crate::select) fn stage_keys<E: Float, F: Float, N: Size>(
    key: &Tensor<Vector<E, N>>,
    to: &mut Shared<[Vector<F, N>]>,
    pack: &Pack,
    chunk: usize,
    #[comptime] bp: ProbeBlueprint,
) {
    let tile = comptime!(bp.tile);
    let width = comptime!(tile.width());
    let units = comptime!(tile.units());
    let first = (pack.b as usize * key.stride(0) + pack.kv_head as usize * key.stride(1)) / width;
    let stride = key.stride(2) / width;
    #[unroll]
    for i in 0..comptime!((tile.keys() * tile.chunk).div_ceil(tile.units())) {
        let slot = UNIT_POS as usize + i * units;
        let (row, v) = (slot / comptime!(tile.chunk), slot % comptime!(tile.chunk));
        if comptime!((i + 1) * tile.units() <= tile.keys() * tile.chunk)
            || slot < comptime!(tile.keys() * tile.chunk)
        {
            let position = pack.first + u32::cast_from(row);
            let vector = chunk * comptime!(tile.chunk) + v;
            let mut loaded = Vector::<F, N>::new(F::from_int(0));
            if position < pack.span.kv_len && vector < comptime!(tile.vectors()) {
                loaded = Vector::cast_from(key[first + position as usize * stride + vector]);
            }
            to[row * comptime!(tile.pitch()) + v] = loaded;
        }
    }
}

/// Stages the vectors of chunk `chunk` of a row tile; rows that do not exist become zeros.
#[cube]
pub(in crate::select) fn stage_rows<E: Float, F: Float, N: Size>(
    query: &Tensor<Vector<E, N>>,
    to: &mut Shared<[Vector<F, N>]>,
    pack: &Pack,
    row_tile: u32,
    chunk: usize,
    #[comptime] bp: ProbeBlueprint,
) {
    let tile = comptime!(bp.tile);
    let width = comptime!(tile.width());
    let units = comptime!(tile.units());
    #[unroll]
    for i in 0..comptime!((tile.rows() * tile.chunk).div_ceil(tile.units())) {
        let slot = UNIT_POS as usize + i * units;
        let (row, v) = (slot / comptime!(tile.chunk), slot % comptime!(tile.chunk));
        if comptime!((i + 1) * tile.units() <= tile.rows() * tile.chunk)
            || slot < comptime!(tile.rows() * tile.chunk)
        {
            let packed = row_tile * comptime!(tile.rows() as u32) + u32::cast_from(row);
            let head = pack.first_head + packed % comptime!(bp.slots as u32);
            let from = rows::row(pack, packed, bp);
            let vector = chunk * comptime!(tile.chunk) + v;
            let mut loaded = Vector::<F, N>::new(F::from_int(0));
            if from != NOWHERE.runtime() && vector < comptime!(tile.vectors()) {
                let at = pack.b as usize * query.stride(0)
                    + head as usize * query.stride(1)
                    + from as usize * query.stride(2);
                loaded = Vector::cast_from(query[at / width + vector]);
            }
            to[row * comptime!(tile.pitch()) + v] = loaded;
        }
    }
}

/// Scores of a row tile, unscaled. Keys that fit whole are staged already.
#[cube]
pub(super) fn scores<E: Float, F: Float, N: Size>(
    query: &Tensor<Vector<E, N>>,
    key: &Tensor<Vector<E, N>>,
    rows: &mut Shared<[Vector<F, N>]>,
    keys: &mut Shared<[Vector<F, N>]>,
    pack: &Pack,
    row_tile: u32,
    #[comptime] bp: ProbeBlueprint,
) -> Sums {
    let tile = comptime!(bp.tile);
    let mut sums = product::zeros(tile);
    for chunk in 0..comptime!(tile.chunks()) {
        sync_cube();
        if comptime!(tile.chunks() > 1) {
            stage_keys(key, keys, pack, chunk, bp);
        }
        stage_rows(query, rows, pack, row_tile, chunk, bp);
        sync_cube();
        product::accumulate(&*rows, &*keys, &mut sums, tile);
    }
    sums
}

/// Replaces the scores outside the keys `[low, high)` of the tile, in the unit's row `h` of its block `m`;
/// most rows see all of most tiles.
#[cube]
pub(in crate::select) fn mask_row(
    sums: &mut Sums,
    low: u32,
    high: u32,
    #[comptime] m: usize,
    #[comptime] h: usize,
    #[comptime] bp: ProbeBlueprint,
) {
    let tile = comptime!(bp.tile);
    if low > 0 || high < comptime!(tile.keys() as u32) {
        product::mask_row(sums, 0u32, low, high, m, h, tile);
    }
}
