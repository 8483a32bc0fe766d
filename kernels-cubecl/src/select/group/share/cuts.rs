//! Shares in memory, by bins, and the ranks at which levels cut them.

use cubecl::prelude::*;
use sparse_accelerate_contract::group::{BASE, BINS};

use super::{BOUNDS, COARSE, FINE, ShareBlueprint};
use crate::select::{
    fixed::{SUM_EXTRA, fixed, scaled, score},
    group::bin,
};

/// Adds up what the units have found of the blocks from `base` on, of a head that some share the largest, in place, and
/// writes their shares. `row` is the index row of the first tile.
#[cube]
pub(super) fn add(
    exchange: &mut Shared<[f32]>,
    bounds: &Shared<[u32]>,
    shares: &mut [f32],
    row: u32,
    blocks: u32,
    base: u32,
    #[comptime] bp: ShareBlueprint,
) {
    let tile = comptime!(bp.tile);
    let mut task = UNIT_POS as usize;
    while task < comptime!(bp.tiles() * tile.rows()) {
        let (t, local) = (task / comptime!(tile.rows()), task % comptime!(tile.rows()));
        let at = t * comptime!(bp.tile_pitch()) + local;
        let mut share = f32::new(0.0);
        #[unroll]
        for head in 0..comptime!(4 / bp.sharing()) {
            let mut largest = f32::new(0.0);
            #[unroll]
            for i in 0..comptime!(bp.sharing()) {
                let unit = comptime!(head * bp.sharing() + i);
                largest = max(largest, exchange[at + comptime!(unit * bp.block_pitch())]);
            }
            share += largest;
        }
        exchange[at] = share;
        let block = base + local as u32;
        if block >= bounds[t * BOUNDS] && block < bounds[t * BOUNDS + 1] {
            shares[(row as usize + t) * blocks as usize + block as usize] = share;
        }
        task += comptime!(tile.units());
    }
}

/// Counts the shares of the blocks from `base` on in the bins of their tiles, without the sinks. Neighbouring units count for
/// different tiles and add up what falls into one bin first: shares that are all alike would queue up otherwise.
#[cube]
pub(super) fn count_shares(
    exchange: &Shared<[f32]>,
    bounds: &Shared<[u32]>,
    bins: &Shared<[Atomic<u32>]>,
    base: u32,
    #[comptime] bp: ShareBlueprint,
) {
    let unit = UNIT_POS as usize;
    let (t, part) = (unit % comptime!(bp.tiles()), unit / comptime!(bp.tiles()));
    let first = part * comptime!(bp.counted());
    let low = max(bounds[t * BOUNDS], bounds[t * BOUNDS + 2]);
    let high = bounds[t * BOUNDS + 1];
    let at = t * comptime!(BINS + 1);
    let mut held = 0u32;
    let mut sum = 0u32;
    for i in 0..comptime!(bp.counted()) {
        let local = first + i;
        let block = base + local as u32;
        if local < comptime!(bp.tile.rows()) && block >= low && block < high {
            let clean = score(u32::reinterpret(
                exchange[t * comptime!(bp.tile_pitch()) + local],
            ));
            let units = fixed(clean, SUM_EXTRA);
            let mut to = bin(clean);
            // The window is kept whatever its share.
            if block >= bounds[t * BOUNDS + 3] {
                to = comptime!(BINS as u32).runtime();
            }
            if to != held {
                if sum > 0 {
                    bins[at + held as usize].fetch_add(sum);
                }
                held = to;
                sum = 0u32;
            }
            sum += units;
        }
    }
    if sum > 0 {
        bins[at + held as usize].fetch_add(sum);
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
