//! Products of mean keys and mean queries, and the logarithms of the sums of their exponentials.

use cubecl::prelude::*;

use super::{BOUNDS, ShareBlueprint, columns::own_tile};
use crate::{
    attend::mma::{
        copy::{address, commit, copy_vector, wait},
        exp2,
    },
    select::product::{self, NOTHING, Sums, UNSEEN},
};

/// The blocks that pass by.
#[derive(CubeType)]
pub(super) struct Walk {
    /// First vector of the KV head's means.
    means_at: usize,
    pub(super) begin: u32,
    pub(super) end: u32,
    /// Address in shared memory of the staged rows.
    rows_at: u32,
    /// First vector of the staged rows of the step that comes.
    next: usize,
}

#[cube]
impl Walk {
    /// A walk over the blocks `begin..end`, whose first mean keys are on their way from here on.
    pub(super) fn new<E: Float, F: Float, N: Size>(
        means: &[Vector<E, N>],
        rows: &mut Shared<[Vector<F, N>]>,
        means_at: usize,
        begin: u32,
        end: u32,
        #[comptime] bp: ShareBlueprint,
    ) -> Walk {
        let mut rows_at = 0u32;
        if comptime!(bp.asynchronous()) {
            rows_at = address(&*rows);
        }
        let walk = Walk {
            means_at,
            begin,
            end,
            rows_at,
            next: 0usize.runtime(),
        };
        if comptime!(bp.asynchronous()) {
            walk.stage(means, rows, begin, 0usize, 0usize, bp);
        }
        walk
    }

    /// Place of a vector of a block's mean key among the means.
    fn vector_of(&self, block: u32, vector: usize, #[comptime] bp: ShareBlueprint) -> usize {
        self.means_at + block as usize * comptime!(bp.tile.vectors()) + vector
    }

    /// Stages the vectors of a chunk of the mean keys of the blocks from `base` on, from vector `to` of the staged rows on; where
    /// the device copies on its own, they are then on their way. Blocks from the walk's end on are zeros, since what
    /// lies there may be anything.
    fn stage<E: Float, F: Float, N: Size>(
        &self,
        means: &[Vector<E, N>],
        rows: &mut Shared<[Vector<F, N>]>,
        base: u32,
        chunk: usize,
        to: usize,
        #[comptime] bp: ShareBlueprint,
    ) {
        let tile = comptime!(bp.tile);
        #[unroll]
        for i in 0..comptime!(bp.staged()) {
            let slot = UNIT_POS as usize + comptime!(i * tile.units());
            let (row, v) = (slot / comptime!(tile.chunk), slot % comptime!(tile.chunk));
            if comptime!((i + 1) * tile.units() <= tile.rows() * tile.chunk)
                || slot < comptime!(tile.rows() * tile.chunk)
            {
                let block = base + row as u32;
                let vector = chunk * comptime!(tile.chunk) + v;
                let there = block < self.end && vector < comptime!(tile.vectors());
                let target = to + row * comptime!(tile.pitch()) + v;
                if comptime!(bp.asynchronous()) {
                    // Of 0 bytes nothing is read, and zeros are written.
                    let bytes = u32::cast_from(there) * 16;
                    let from = self.vector_of(block, vector, bp);
                    let target = self.rows_at + (target * 16) as u32;
                    copy_vector(&means[from..from + 1], target, bytes);
                } else {
                    let mut loaded = Vector::<F, N>::new(F::from_int(0));
                    if there {
                        loaded = Vector::cast_from(means[self.vector_of(block, vector, bp)]);
                    }
                    rows[target] = loaded;
                }
            }
        }
        if comptime!(bp.asynchronous()) {
            commit();
        }
    }
}

/// Products of the mean keys of the blocks from `base` on and the mean queries, unscaled. Asynchronous copies of the
/// step after begin; after the `last` pass over the walk comes nothing, else its first step again.
#[cube]
pub(super) fn products<E: Float, F: Float, N: Size>(
    means: &[Vector<E, N>],
    rows: &mut Shared<[Vector<F, N>]>,
    columns: &Shared<[Vector<F, N>]>,
    walk: &mut Walk,
    base: u32,
    #[comptime] last: bool,
    #[comptime] bp: ShareBlueprint,
) -> Sums {
    let tile = comptime!(bp.tile);
    let mut sums = product::zeros(tile);
    if comptime!(bp.asynchronous()) {
        wait(0u32);
        sync_cube();
        let other = comptime!(bp.step()) - walk.next;
        let mut then = base + comptime!(tile.rows() as u32);
        if comptime!(!last) {
            if then >= walk.end {
                then = walk.begin;
            }
        }
        if then < walk.end {
            walk.stage(means, rows, then, 0usize, other, bp);
        }
        product::accumulate_whole(&*rows, walk.next, columns, 0usize, &mut sums, tile);
        walk.next = other;
    } else {
        for chunk in 0..comptime!(tile.chunks()) {
            sync_cube();
            walk.stage(means, rows, base, chunk, 0usize, bp);
            sync_cube();
            let from = chunk * comptime!(tile.chunk);
            product::accumulate_whole(&*rows, 0usize, columns, from, &mut sums, tile);
        }
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
/// the exponents of shares. `factor` is positive.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn normalise<E: Float, F: Float, N: Size>(
    means: &[Vector<E, N>],
    rows: &mut Shared<[Vector<F, N>]>,
    columns: &Shared<[Vector<F, N>]>,
    exchange: &mut Shared<[f32]>,
    shifts: &mut Shared<[f32]>,
    peaks: &mut Shared<[f32]>,
    bounds: &Shared<[u32]>,
    walk: &mut Walk,
    factor: f32,
    #[comptime] bp: ShareBlueprint,
) {
    let tile = comptime!(bp.tile);
    let inline = comptime!(bp.inline);
    let own = comptime!(tile.key_tiles * 2);
    let mut maximum = Array::<f32>::new(own);
    let mut sum = Array::<f32>::new(own);
    #[unroll]
    for i in 0..own {
        maximum[i] = f32::new(NOTHING);
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
        let mut sums = products(means, rows, columns, walk, base, false, bp);
        if base < low || base + comptime!(tile.rows() as u32) > high {
            mask(&mut sums, bounds, base, bp);
        }
        #[unroll]
        for i in 0..own {
            let before = maximum[i];
            let mut highest = before;
            #[unroll]
            for r in 0..comptime!(bp.own_rows()) {
                let at = comptime!(r / 2 * tile.key_tiles + i / 2);
                let dot = sums.index(at)[comptime!(r % 2)].extract(comptime!(i % 2));
                highest = max(highest, dot);
            }
            let shift = f32::new(0.0) - highest * factor;
            // Of equal maxima exactly 1, also where nothing was seen yet.
            let mut total = sum[i] * exp2((before - highest) * factor, inline);
            #[unroll]
            for r in 0..comptime!(bp.own_rows()) {
                let at = comptime!(r / 2 * tile.key_tiles + i / 2);
                let dot = sums.index(at)[comptime!(r % 2)].extract(comptime!(i % 2));
                total += product::weight(dot, factor, shift, inline);
            }
            maximum[i] = highest;
            sum[i] = total;
        }
        base += comptime!(tile.rows() as u32);
    }

    // The largest of all units that share a column, then the sum of their sums.
    let sharer = UNIT_POS_Y as usize % comptime!(tile.row_planes) * 8 + UNIT_POS_X as usize / 4;
    let first = product::first_key(tile);
    let at = sharer * comptime!(bp.column_pitch()) + first;
    #[unroll]
    for i in 0..own {
        exchange[at + comptime!(i / 2 * 8 + i % 2)] = maximum[i];
    }
    sync_cube();
    let mut column = UNIT_POS as usize;
    while column < comptime!(tile.keys()) {
        let mut highest = f32::new(NOTHING);
        #[unroll]
        for i in 0..comptime!(bp.sharers()) {
            highest = max(highest, exchange[comptime!(i * bp.column_pitch()) + column]);
        }
        peaks[column] = highest;
        column += comptime!(tile.units());
    }
    sync_cube();
    #[unroll]
    for i in 0..own {
        let peak = peaks[first + comptime!(i / 2 * 8 + i % 2)];
        let weight = exp2((maximum[i] - peak) * factor, inline);
        exchange[at + comptime!(i / 2 * 8 + i % 2)] = sum[i] * weight;
    }
    sync_cube();
    let mut column = UNIT_POS as usize;
    while column < comptime!(tile.keys()) {
        let mut total = f32::new(0.0);
        #[unroll]
        for i in 0..comptime!(bp.sharers()) {
            total += exchange[comptime!(i * bp.column_pitch()) + column];
        }
        let weight = shifts[column];
        if weight > f32::new(NOTHING) {
            let exponent = total.ln() * f32::new(core::f32::consts::LOG2_E);
            shifts[column] = weight - peaks[column] * factor - exponent;
        }
        column += comptime!(tile.units());
    }
    sync_cube();
}

/// Hides from every tile's columns the blocks from `base` on that are not its candidates.
#[cube]
fn mask(sums: &mut Sums, bounds: &Shared<[u32]>, base: u32, #[comptime] bp: ShareBlueprint) {
    let tile = comptime!(bp.tile);
    let first = base + product::first_row(tile) as u32;
    #[unroll]
    for set in 0..comptime!(bp.sets()) {
        let at = own_tile(set, bp) * BOUNDS;
        let (low, high) = (bounds[at], bounds[at + 1]);
        #[unroll]
        for r in 0..comptime!(bp.own_rows()) {
            let block = first + comptime!((r * 8) as u32);
            if block < low || block >= high {
                #[unroll]
                for j in 0..comptime!(bp.mixed() / 8) {
                    let at = comptime!(r / 2 * tile.key_tiles + set * bp.mixed() / 8 + j);
                    let a = sums.index_mut(at);
                    a[comptime!(r % 2)] = Vector::new(f32::new(UNSEEN));
                }
            }
        }
    }
}
