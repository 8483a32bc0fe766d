//! Scores of the sampled rows against one tile of key blocks.

use cubecl::prelude::*;

use super::{ScoreBlueprint, rows};
use crate::select::{
    pack::{NOWHERE, Pack},
    product::{self, Sums},
};

/// Stages the vectors of chunk `chunk` of a variant's rows, weighted; rows that do not exist become zeros.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn stage_rows<E: Float, F: Float, N: Size>(
    query: &Tensor<Vector<E, N>>,
    weights: &[Vector<f32, N>],
    to: &mut Shared<[Vector<F, N>]>,
    pack: &Pack,
    chunk: usize,
    scale: f32,
    #[comptime] variant: usize,
    #[comptime] bp: ScoreBlueprint,
) {
    let tile = comptime!(bp.of(variant));
    let units = comptime!(tile.units());
    let vectors = comptime!(bp.vectors());
    #[unroll]
    for i in 0..comptime!((tile.rows() * tile.chunk).div_ceil(tile.units())) {
        let slot = UNIT_POS as usize + i * units;
        let (row, v) = (slot / comptime!(tile.chunk), slot % comptime!(tile.chunk));
        if comptime!((i + 1) * tile.units() <= tile.rows() * tile.chunk)
            || slot < comptime!(tile.rows() * tile.chunk)
        {
            let packed = u32::cast_from(row);
            let head = pack.first_head + packed % comptime!(bp.slots as u32);
            let from = rows::row(pack, packed, bp);
            let vector = chunk * comptime!(tile.chunk) + v;
            let mut loaded = Vector::<f32, N>::new(f32::new(0.0));
            if from != NOWHERE.runtime() && vector < comptime!(tile.vectors()) {
                let at = pack.b as usize * query.stride(0)
                    + head as usize * query.stride(1)
                    + from as usize * query.stride(2);
                let element = vector % vectors;
                loaded = Vector::cast_from(query[at / comptime!(tile.width()) + element]);
                if vector < vectors {
                    loaded *= weights[comptime!(variant * bp.vectors()) + element];
                } else {
                    let halved = loaded * Vector::new(scale * f32::new(0.5));
                    loaded *= halved;
                }
            }
            to[row * comptime!(tile.pitch()) + v] = Vector::cast_from(loaded);
        }
    }
}

/// Stages the vectors of chunk `chunk` of the key blocks from `base` on: means, then variances. Blocks from
/// `end` on become zeros, since what lies there may be anything.
#[cube]
#[allow(clippy::too_many_arguments)]
fn stage_keys<F: Float, N: Size>(
    pooled: &[Vector<F, N>],
    to: &mut Shared<[Vector<F, N>]>,
    first: usize,
    base: u32,
    end: u32,
    chunk: usize,
    #[comptime] variant: usize,
    #[comptime] bp: ScoreBlueprint,
) {
    let tile = comptime!(bp.of(variant));
    let units = comptime!(tile.units());
    #[unroll]
    for i in 0..comptime!((tile.keys() * tile.chunk).div_ceil(tile.units())) {
        let slot = UNIT_POS as usize + i * units;
        let (row, v) = (slot / comptime!(tile.chunk), slot % comptime!(tile.chunk));
        if comptime!((i + 1) * tile.units() <= tile.keys() * tile.chunk)
            || slot < comptime!(tile.keys() * tile.chunk)
        {
            let block = base + u32::cast_from(row);
            let vector = chunk * comptime!(tile.chunk) + v;
            let mut loaded = Vector::<F, N>::new(F::from_int(0));
            if block < end && vector < comptime!(tile.vectors()) {
                let at = first + block as usize * comptime!(3 * bp.vectors()) + vector;
                loaded = pooled[at];
            }
            to[row * comptime!(tile.pitch()) + v] = loaded;
        }
    }
}

/// Scores of the rows against the key blocks from `base` on, unscaled. Rows that fit whole are staged
/// already. `first` is the first pooled vector of the KV head.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn scores<E: Float, F: Float, N: Size>(
    query: &Tensor<Vector<E, N>>,
    pooled: &[Vector<F, N>],
    weights: &[Vector<f32, N>],
    rows: &mut Shared<[Vector<F, N>]>,
    keys: &mut Shared<[Vector<F, N>]>,
    pack: &Pack,
    first: usize,
    base: u32,
    end: u32,
    scale: f32,
    #[comptime] variant: usize,
    #[comptime] bp: ScoreBlueprint,
) -> Sums {
    let tile = comptime!(bp.of(variant));
    let mut sums = product::zeros(tile);
    for chunk in 0..comptime!(tile.chunks()) {
        sync_cube();
        if comptime!(tile.chunks() > 1) {
            stage_rows(query, weights, rows, pack, chunk, scale, variant, bp);
        }
        stage_keys(pooled, keys, first, base, end, chunk, variant, bp);
        sync_cube();
        product::accumulate(&*rows, &*keys, &mut sums, tile);
    }
    sums
}
