//! Products of mean keys and mean queries, and the logarithms of the sums of their exponentials.

use cubecl::prelude::*;

use super::{BOUNDS, ShareBlueprint};
use crate::{
    attend::mma::exp2,
    select::product::{self, NOTHING, Sums, UNSEEN},
};

/// The blocks that pass by.
#[derive(CubeType)]
pub(super) struct Walk {
    /// First vector of the KV head's means.
    pub(super) means_at: usize,
    pub(super) begin: u32,
    pub(super) end: u32,
}

/// Fetches what this unit stages of the mean keys of the blocks from `base` on. Blocks from the walk's end on are
/// zeros, since what lies there may be anything.
#[cube]
pub(super) fn fetch<E: Float, F: Float, N: Size>(
    means: &[Vector<E, N>],
    to: &mut Array<Vector<F, N>>,
    walk: &Walk,
    base: u32,
    chunk: usize,
    #[comptime] bp: ShareBlueprint,
) {
    let tile = comptime!(bp.tile);
    #[unroll]
    for i in 0..comptime!(bp.staged()) {
        let slot = UNIT_POS as usize + comptime!(i * tile.units());
        let (row, v) = (slot / comptime!(tile.chunk), slot % comptime!(tile.chunk));
        let block = base + u32::cast_from(row);
        let vector = chunk * comptime!(tile.chunk) + v;
        to[i] = Vector::new(F::from_int(0));
        if block < walk.end && vector < comptime!(tile.vectors()) {
            let at = walk.means_at + block as usize * comptime!(tile.vectors()) + vector;
            to[i] = Vector::cast_from(means[at]);
        }
    }
}

/// Products of the mean keys of the blocks from `base` on and the mean queries, unscaled. The mean keys of the step
/// after, which is the first after the last, are fetched meanwhile, to be found in `next` by the next call.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn products<E: Float, F: Float, N: Size>(
    means: &[Vector<E, N>],
    rows: &mut Shared<[Vector<F, N>]>,
    columns: &Shared<[Vector<F, N>]>,
    next: &mut Array<Vector<F, N>>,
    walk: &Walk,
    base: u32,
    #[comptime] bp: ShareBlueprint,
) -> Sums {
    let tile = comptime!(bp.tile);
    let mut then = base + comptime!(tile.rows() as u32);
    if then >= walk.end {
        then = walk.begin;
    }
    let mut sums = product::zeros(tile);
    for chunk in 0..comptime!(tile.chunks()) {
        if comptime!(!bp.ahead()) {
            fetch(means, next, walk, base, chunk, bp);
        }
        sync_cube();
        #[unroll]
        for i in 0..comptime!(bp.staged()) {
            let slot = UNIT_POS as usize + comptime!(i * tile.units());
            let (row, v) = (slot / comptime!(tile.chunk), slot % comptime!(tile.chunk));
            if comptime!((i + 1) * tile.units() <= tile.rows() * tile.chunk)
                || slot < comptime!(tile.rows() * tile.chunk)
            {
                rows[row * comptime!(tile.pitch()) + v] = next[i];
            }
        }
        sync_cube();
        if comptime!(bp.ahead()) {
            fetch(means, next, walk, then, chunk, bp);
        }
        let from = chunk * comptime!(tile.chunk);
        product::accumulate_whole(&*rows, columns, from, &mut sums, tile);
    }
    sums
}

/// `2^(dot * factor + shift)`, 0 in a column that is nobody's.
#[cube]
pub(super) fn weight(dot: f32, factor: f32, shift: f32, #[comptime] bp: ShareBlueprint) -> f32 {
    let x = exp2(fma(dot, factor, shift), comptime!(bp.inline));
    if comptime!(bp.inline || !bp.padded()) {
        x
    } else {
        select(shift <= f32::new(NOTHING), f32::new(0.0), x)
    }
}

/// Adds to the shifts, which hold weights, minus the logarithms of the sums over all candidates: the shifts of
/// the exponents of shares.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn normalise<E: Float, F: Float, N: Size>(
    means: &[Vector<E, N>],
    rows: &mut Shared<[Vector<F, N>]>,
    columns: &Shared<[Vector<F, N>]>,
    exchange: &mut Shared<[f32]>,
    shifts: &mut Shared<[f32]>,
    bounds: &Shared<[u32]>,
    next: &mut Array<Vector<F, N>>,
    walk: &Walk,
    factor: f32,
    #[comptime] bp: ShareBlueprint,
) {
    let tile = comptime!(bp.tile);
    let own = comptime!(tile.key_tiles * 2);
    let mut maximum = Array::<f32>::new(own);
    let mut sum = Array::<f32>::new(own);
    #[unroll]
    for i in 0..own {
        maximum[i] = f32::new(NOTHING) * factor;
        sum[i] = f32::new(0.0);
    }
    // Blocks that are candidates of all tiles.
    let mut low = walk.begin;
    let mut high = walk.end;
    for t in 0..comptime!(bp.tiles()) {
        low = max(low, bounds[t * BOUNDS]);
        high = min(high, bounds[t * BOUNDS + 1]);
    }
    let mut base = walk.begin;
    while base < walk.end {
        let mut sums = products(means, rows, columns, next, walk, base, bp);
        if base < low || base + comptime!(tile.rows() as u32) > high {
            mask(&mut sums, bounds, base, bp);
        }
        #[unroll]
        for i in 0..own {
            let mut highest = maximum[i];
            #[unroll]
            for r in 0..comptime!(tile.row_tiles * 2) {
                let at = comptime!(r / 2 * tile.key_tiles + i / 2);
                let dot = sums.index(at)[comptime!(r % 2)].extract(comptime!(i % 2));
                highest = max(highest, dot * factor);
            }
            let mut total = sum[i] * exp2(maximum[i] - highest, comptime!(bp.inline));
            let shift = f32::new(0.0) - highest;
            #[unroll]
            for r in 0..comptime!(tile.row_tiles * 2) {
                let at = comptime!(r / 2 * tile.key_tiles + i / 2);
                let dot = sums.index(at)[comptime!(r % 2)].extract(comptime!(i % 2));
                total += product::weight(dot, factor, shift, bp.inline);
            }
            maximum[i] = highest;
            sum[i] = total;
        }
        base += comptime!(tile.rows() as u32);
    }

    let pitch = comptime!(bp.column_pitch());
    let sharer = UNIT_POS_Y as usize % comptime!(tile.row_planes) * 8 + UNIT_POS_X as usize / 4;
    let column = product::first_key(tile);
    #[unroll]
    for i in 0..own {
        let to = sharer * pitch + column + comptime!(i / 2 * 8 + i % 2);
        exchange[to] = maximum[i];
        exchange[comptime!(bp.sharers() * bp.column_pitch()) + to] = sum[i];
    }
    sync_cube();
    let mut column = UNIT_POS as usize;
    while column < comptime!(tile.keys()) {
        let mut highest = f32::new(NOTHING) * factor;
        #[unroll]
        for i in 0..comptime!(bp.sharers()) {
            highest = max(highest, exchange[comptime!(i * bp.column_pitch()) + column]);
        }
        let mut total = f32::new(0.0);
        #[unroll]
        for i in 0..comptime!(bp.sharers()) {
            let at = comptime!(i * bp.column_pitch()) + column;
            let weight = exp2(exchange[at] - highest, comptime!(bp.inline));
            total += weight * exchange[comptime!(bp.sharers() * bp.column_pitch()) + at];
        }
        let weight = shifts[column];
        if weight > f32::new(NOTHING) {
            let exponent = total.ln() * f32::new(core::f32::consts::LOG2_E);
            shifts[column] = weight - highest - exponent;
        }
        column += comptime!(tile.units());
    }
    sync_cube();
}

/// Hides from every tile's columns the blocks from `base` on that are not its candidates.
#[cube]
fn mask(sums: &mut Sums, bounds: &Shared<[u32]>, base: u32, #[comptime] bp: ShareBlueprint) {
    let tile = comptime!(bp.tile);
    let group = UNIT_POS_Y as usize / comptime!(tile.row_planes);
    let first = base + product::first_row(tile) as u32;
    #[unroll]
    for s in 0..comptime!(bp.group_tiles()) {
        let at = (group * comptime!(bp.group_tiles()) + s) * BOUNDS;
        let (low, high) = (bounds[at], bounds[at + 1]);
        #[unroll]
        for r in 0..comptime!(tile.row_tiles * 2) {
            let block = first + comptime!((r * 8) as u32);
            if block < low || block >= high {
                #[unroll]
                for j in 0..comptime!(bp.stride() / 8) {
                    let at = comptime!(r / 2 * tile.key_tiles + s * bp.stride() / 8 + j);
                    let a = sums.index_mut(at);
                    a[comptime!(r % 2)] = Vector::new(f32::new(UNSEEN));
                }
            }
        }
    }
}
