//! Shares in memory and by bins, and the ranks at which levels cut them.

use cubecl::prelude::*;
use sparse_accelerate_contract::group::{BASE, BINS};

use super::{BOUNDS, COARSE, FINE, ShareBlueprint, columns::own_tile};
use crate::select::{
    fixed::{SUM_EXTRA, fixed, scaled, score},
    group::bin,
    product::first_row,
};

/// Adds up the shares of the rows that several units hold: of a head that some of them share the largest counts. A unit
/// is left with those of which it is the one to tell.
#[cube]
pub(super) fn gather(
    found: &mut Array<f32>,
    exchange: &mut Shared<[f32]>,
    #[comptime] bp: ShareBlueprint,
) {
    let (units, holders) = comptime!((bp.tile.units(), bp.holders()));
    let unit = UNIT_POS as usize;
    let own = unit % holders;
    #[unroll]
    for i in 0..comptime!(bp.sets() * bp.own_rows()) {
        exchange[comptime!(i * units) + unit] = found[i];
    }
    sync_cube();
    #[unroll]
    for i in 0..comptime!(bp.sets() * bp.own_rows()) {
        if own == comptime!(i % holders) {
            let first = comptime!(i * units) + unit - own;
            let mut share = f32::new(0.0);
            #[unroll]
            for head in 0..comptime!(holders / bp.sharing()) {
                let mut largest = f32::new(0.0);
                #[unroll]
                for part in 0..comptime!(bp.sharing()) {
                    largest = max(
                        largest,
                        exchange[first + comptime!(head * bp.sharing() + part)],
                    );
                }
                share += largest;
            }
            found[i] = share;
        }
    }
}

/// Writes the shares that this unit has found of the blocks from `base` on, and counts them in the bins of their tiles,
/// without the sinks. `row` is the index row of the first tile.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn tally(
    found: &Array<f32>,
    bounds: &Shared<[u32]>,
    bins: &Shared<[Atomic<u32>]>,
    shares: &mut [f32],
    row: u32,
    blocks: u32,
    base: u32,
    #[comptime] bp: ShareBlueprint,
) {
    let own = UNIT_POS as usize % comptime!(bp.holders());
    let first = base + first_row(comptime!(bp.tile)) as u32;
    #[unroll]
    for set in 0..comptime!(bp.sets()) {
        let tile = own_tile(set, bp);
        let at = tile * BOUNDS;
        let (low, high, sinks, local) =
            (bounds[at], bounds[at + 1], bounds[at + 2], bounds[at + 3]);
        let to = (row as usize + tile) * blocks as usize;
        let bins_at = tile * comptime!(BINS + 1);
        #[unroll]
        for r in 0..comptime!(bp.own_rows()) {
            let i = comptime!(set * bp.own_rows() + r);
            let block = first + comptime!((r * 8) as u32);
            if own == comptime!(i % bp.holders()) && block >= low && block < high {
                let share = found[i];
                shares[to + block as usize] = share;
                if block >= sinks {
                    let clean = score(u32::reinterpret(share));
                    let mut to = bin(clean);
                    // The window is kept whatever its share.
                    if block >= local {
                        to = comptime!(BINS as u32).runtime();
                    }
                    bins[bins_at + to as usize].fetch_add(fixed(clean, SUM_EXTRA));
                }
            }
        }
    }
}

/// The rank at which a tile's shares are cut so that what is kept is at least `aimed` of all, in units of 2^-24.
#[cube]
pub(super) fn cut(
    bins: &Shared<[Atomic<u32>]>,
    coarse: &Shared<[u32]>,
    tile: usize,
    aimed: u32,
) -> u32 {
    let (at, coarse_at) = (tile * comptime!(BINS + 1), tile * COARSE);
    let mut kept = bins[at + BINS].load();
    let mut total = kept;
    for i in 0..COARSE {
        total += coarse[coarse_at + i];
    }
    let needed = scaled(aimed, total);
    let mut cut = u32::MAX.runtime();
    // Shares that are not finite, or nothing beside the sinks, say nothing: all is kept.
    if total == 0 {
        cut = 0u32;
    } else if kept < needed {
        let mut group = comptime!(COARSE).runtime();
        let mut above = kept;
        while kept < needed && group > 0 {
            group -= 1;
            above = kept;
            kept += coarse[coarse_at + group];
        }
        kept = above;
        let mut bin = (group + 1) * FINE;
        while kept < needed && bin > 0 {
            bin -= 1;
            kept += bins[at + bin].load();
        }
        cut = 0u32;
        if bin > 0 {
            cut = bin as u32 + comptime!(BASE);
        }
    }
    cut
}
