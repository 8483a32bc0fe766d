//! Shares of key blocks, and the bins at which they are cut.
//!
//! A cube owns some query tiles of an index head, whose mean queries stay in shared memory as the columns of a
//! product with the mean keys of the blocks, which pass by. They pass twice, since the products of long prompts
//! fit nowhere: once for every column's maximum and sum, once for the shares, which are added up by bins in
//! units of 2^-28. A cut is the end of a bin. The window counts as kept from the start, sinks do not count at all.
//!
//! A unit finds the share of a block by itself where it holds all parts and heads of a tile, see [`blueprint`]; some
//! that stand side by side do otherwise. What they find goes to memory and into the bins of the tile at once.

// A comptime condition is an `if` of its own: it decides what is compiled.
#![allow(clippy::collapsible_if)]

mod blueprint;
mod columns;
mod cuts;
mod multiply;

use cubecl::prelude::*;
use sparse_accelerate_contract::group::{BINS, LEVELS};

pub(super) use self::blueprint::{ShareBlueprint, stride};
use self::{
    columns::mean_queries,
    cuts::{cut, gather, tally},
    multiply::{Walk, normalise, products, weight},
};
use super::{Tile, aim};
use crate::{
    select::product,
    table::{HeadRules, Span, Window},
};

/// Words of a tile's bounds.
const BOUNDS: usize = 4;
/// Bins that are added up before a cut is looked for, and how many such sums a tile has.
const FINE: usize = 16;
const COARSE: usize = BINS / FINE;

/// Writes, of every tile, the shares of its candidates to `shares` `[B, Hi, tiles, blocks]` (others are left)
/// and its cuts to `cuts` `[B, Hi, tiles, LEVELS]`. `means` `[B, Hk, capacity, d]`.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(super) fn share_blocks<E: Float, F: Float, N: Size>(
    query: &Tensor<Vector<E, N>>,
    means: &[Vector<E, N>],
    spans: &[u32],
    rules: &[u32],
    shares: &mut [f32],
    cuts: &mut [u32],
    cubes: u32,
    parts: u32,
    index_heads: u32,
    indexes_per_kv: u32,
    tiles: u32,
    blocks: u32,
    capacity: u32,
    scale: f32,
    window: ComptimeOption<u32>,
    #[comptime] bp: ShareBlueprint,
    #[define(E)] _elem: ElemType,
    #[define(F)] _staged: ElemType,
) {
    let cube = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
    if cube >= cubes {
        terminate!();
    }
    let tile = comptime!(bp.tile);
    // The last tiles, which have most candidates, come first.
    let first_tile = (parts - 1 - cube % parts) * comptime!(bp.tiles() as u32);
    let flat = cube / parts;
    let (b, index_head) = (flat / index_heads, flat % index_heads);
    let span = Span::of(spans, b);
    let rule = HeadRules::of(index_head as usize);
    let window = Window::of(&window);

    let mut columns = Shared::<[Vector<F, N>]>::new_aligned_slice(comptime!(bp.columns()), 16usize);
    let mut rows = Shared::<[Vector<F, N>]>::new_aligned_slice(comptime!(bp.rows()), 16usize);
    let mut exchange = Shared::<[f32]>::new_slice(comptime!(bp.exchange()));
    let mut shifts = Shared::<[f32]>::new_slice(comptime!(tile.keys()));
    let mut peaks = Shared::<[f32]>::new_slice(comptime!(tile.keys()));
    let bins = Shared::<[Atomic<u32>]>::new_slice(comptime!(bp.tiles() * (BINS + 1)));
    let mut bounds = Shared::<[u32]>::new_slice(comptime!(bp.tiles() * BOUNDS));
    let factor = scale * f32::new(core::f32::consts::LOG2_E);

    let mut t = UNIT_POS as usize;
    while t < comptime!(bp.tiles()) {
        let own = Tile::new(&span, &rule, rules, first_tile + t as u32, &window);
        bounds[t * BOUNDS] = own.low;
        bounds[t * BOUNDS + 1] = own.high;
        bounds[t * BOUNDS + 2] = own.sinks;
        bounds[t * BOUNDS + 3] = own.local;
        t += comptime!(tile.units());
    }
    let head = b as usize * query.stride(0)
        + (index_head * comptime!(bp.heads as u32)) as usize * query.stride(1);
    mean_queries(
        query,
        &mut columns,
        &mut shifts,
        head,
        first_tile,
        span.query_len,
        bp,
    );
    let mut at = UNIT_POS as usize;
    while at < comptime!(bp.tiles() * (BINS + 1)) {
        bins[at].store(0u32);
        at += comptime!(tile.units());
    }
    sync_cube();

    let begin = bounds[0];
    let mut end = 0u32;
    for t in 0..comptime!(bp.tiles()) {
        end = max(end, bounds[t * BOUNDS + 1]);
    }
    let means_at = (flat / indexes_per_kv) as usize * capacity as usize * comptime!(tile.vectors());
    let mut walk = Walk::new(means, &mut rows, means_at, begin, end, bp);
    normalise(
        means,
        &mut rows,
        &columns,
        &mut exchange,
        &mut shifts,
        &mut peaks,
        &bounds,
        &mut walk,
        factor,
        bp,
    );

    let row = flat * tiles + first_tile;
    let column = product::first_key(tile);
    let own = comptime!(tile.key_tiles * 2);
    let mut shift = Array::<f32>::new(own);
    #[unroll]
    for i in 0..own {
        shift[i] = shifts[column + comptime!(i / 2 * 8 + i % 2)];
    }
    let mut found = Array::<f32>::new(comptime!(bp.sets() * bp.own_rows()));
    let mut base = begin;
    while base < end {
        let sums = products(means, &mut rows, &columns, &mut walk, base, true, bp);
        #[unroll]
        for set in 0..comptime!(bp.sets()) {
            #[unroll]
            for r in 0..comptime!(bp.own_rows()) {
                let mut share = f32::new(0.0);
                let parts = comptime!(bp.parts.min(bp.values()));
                #[unroll]
                for head in 0..comptime!(bp.values() / parts) {
                    let mut largest = f32::new(0.0);
                    #[unroll]
                    for part in 0..parts {
                        let i = comptime!(set * bp.values() + head * parts + part);
                        let dot = sums.index(comptime!(r / 2 * tile.key_tiles + i / 2))
                            [comptime!(r % 2)]
                        .extract(comptime!(i % 2));
                        largest = max(largest, weight(dot, factor, shift[i], bp));
                    }
                    share += largest;
                }
                found[comptime!(set * bp.own_rows() + r)] = share;
            }
        }
        if comptime!(bp.holders() > 1) {
            gather(&mut found, &mut exchange, bp);
        }
        tally(&found, &bounds, &bins, shares, row, blocks, base, bp);
        base += comptime!(tile.rows() as u32);
    }
    sync_cube();

    let mut coarse = Shared::<[u32]>::new_slice(comptime!(bp.tiles() * COARSE));
    let mut at = UNIT_POS as usize;
    while at < comptime!(bp.tiles() * COARSE) {
        let from = at / COARSE * comptime!(BINS + 1) + at % COARSE * FINE;
        let mut sum = 0u32;
        #[unroll]
        for i in 0..FINE {
            sum += bins[from + i].load();
        }
        coarse[at] = sum;
        at += comptime!(tile.units());
    }
    sync_cube();
    let count = min(tiles - first_tile, comptime!(bp.tiles() as u32)) as usize;
    let mut pair = UNIT_POS as usize;
    while pair < count * LEVELS {
        let aimed = aim(&rule, rules, (pair % LEVELS) as u32);
        cuts[row as usize * LEVELS + pair] = cut(&bins, &coarse, pair / LEVELS, aimed);
        pair += comptime!(tile.units());
    }
}

const _: () = assert!(BINS.is_multiple_of(FINE));
