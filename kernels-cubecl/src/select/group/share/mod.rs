//! Shares of key blocks, and the bins at which they are cut.
//!
//! A cube owns some query tiles of an index head, whose mean queries stay in shared memory as the columns of a
//! product with the mean keys of the blocks, which pass by. They pass twice, since the products of long prompts
//! fit nowhere: once for every column's maximum and sum, once for the shares, which are added up by bins in
//! units of 2^-28. A cut is the end of a bin. The window counts as kept from the start, sinks do not count at all.
//!
//! The columns of a tile lie side by side, [`ShareBlueprint::stride`] from those of the next, some of them nobody's:
//! so that a unit holds all parts of a head, or some units that stand side by side do.

// A comptime condition is an `if` of its own: it decides what is compiled.
#![allow(clippy::collapsible_if)]

mod columns;
mod cuts;
mod multiply;

use cubecl::prelude::*;
use sparse_accelerate_contract::group::{BINS, LEVELS};

use self::{
    columns::mean_queries,
    cuts::{add, count_shares, cut},
    multiply::{Walk, fetch, normalise, products, weight},
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

/// Compile-time parameters of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ShareBlueprint {
    /// Rows are mean keys, keys are mean queries. A group's keys are those of whole query tiles.
    pub(super) tile: product::Tile,
    /// Query heads that share a choice.
    pub(super) heads: usize,
    /// Mean queries of a query tile and head.
    pub(super) parts: usize,
    /// The exponential is an instruction of inline PTX.
    pub(super) inline: bool,
}

impl ShareBlueprint {
    /// Columns from one query tile to the next.
    pub(super) fn stride(&self) -> usize {
        stride(self.heads * self.parts)
    }

    /// Columns of a query tile that a unit holds of a row.
    fn values(&self) -> usize {
        self.stride() / 4
    }

    /// Units that share a head of a row.
    fn sharing(&self) -> usize {
        self.parts.div_ceil(self.values())
    }

    /// Query tiles of a cube.
    pub(super) fn tiles(&self) -> usize {
        self.tile.keys() / self.stride()
    }

    /// Query tiles of a group of units.
    fn group_tiles(&self) -> usize {
        self.tile.group_keys() / self.stride()
    }

    /// Some columns are nobody's.
    fn padded(&self) -> bool {
        self.stride() > self.heads * self.parts
    }

    /// Units that share a column.
    fn sharers(&self) -> usize {
        self.tile.row_planes * 8
    }

    /// Floats from a row of the exchange to the next, where a row is what some units have found of the tile's
    /// blocks or of its columns: neighbours fall into different banks.
    fn block_pitch(&self) -> usize {
        self.tile.rows() + 8
    }

    fn column_pitch(&self) -> usize {
        self.tile.keys() + 4
    }

    /// Floats from a query tile's blocks in the exchange to the next one's.
    fn tile_pitch(&self) -> usize {
        4 * self.block_pitch() + 2
    }

    /// Floats that units exchange.
    fn exchange(&self) -> usize {
        (self.tiles() * self.tile_pitch()).max(2 * self.sharers() * self.column_pitch())
    }

    /// Blocks that a unit counts, all of one tile.
    fn counted(&self) -> usize {
        (self.tiles() * self.tile.rows()).div_ceil(self.tile.units())
    }

    /// Vectors of a step's mean keys that a unit stages.
    fn staged(&self) -> usize {
        (self.tile.rows() * self.tile.chunk).div_ceil(self.tile.units())
    }

    /// A step's mean keys are on their way while those of the step before are multiplied.
    fn ahead(&self) -> bool {
        self.tile.chunks() == 1
    }

    /// Shared memory of a cube.
    pub(super) fn shared_bytes(&self) -> usize {
        let tile = self.tile;
        let staged = tile.staged_bytes(tile.rows()) + tile.keys() * tile.whole_pitch() * 16;
        let words = self.exchange() + tile.keys() + self.tiles() * (BINS + 1 + BOUNDS + COARSE);
        staged + words * size_of::<u32>()
    }
}

/// Columns of a query tile, of which `used` are somebody's.
pub(super) fn stride(used: usize) -> usize {
    used.next_power_of_two().max(8)
}

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

    let mut columns = Shared::<[Vector<F, N>]>::new_aligned_slice(
        comptime!(tile.keys() * tile.whole_pitch()),
        16usize,
    );
    let mut rows =
        Shared::<[Vector<F, N>]>::new_aligned_slice(comptime!(tile.rows() * tile.pitch()), 16usize);
    let mut exchange = Shared::<[f32]>::new_slice(comptime!(bp.exchange()));
    let mut shifts = Shared::<[f32]>::new_slice(comptime!(tile.keys()));
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
    let walk = Walk {
        means_at,
        begin,
        end,
    };
    let mut next = Array::<Vector<F, N>>::new(comptime!(bp.staged()));
    fetch(means, &mut next, &walk, begin, 0usize, bp);
    normalise(
        means,
        &mut rows,
        &columns,
        &mut exchange,
        &mut shifts,
        &bounds,
        &mut next,
        &walk,
        factor,
        bp,
    );

    let row = flat * tiles + first_tile;
    let mut base = begin;
    while base < end {
        let sums = products(means, &mut rows, &columns, &mut next, &walk, base, bp);
        let group = UNIT_POS_Y as usize / comptime!(tile.row_planes);
        let column = product::first_key(tile);
        #[unroll]
        for s in 0..comptime!(bp.group_tiles()) {
            let of_tile = comptime!(bp.stride() / 8);
            let mut shift = Array::<f32>::new(comptime!(2 * of_tile));
            #[unroll]
            for i in 0..comptime!(2 * of_tile) {
                shift[i] = shifts[column + comptime!(s * bp.stride() + i / 2 * 8 + i % 2)];
            }
            let to = (group * comptime!(bp.group_tiles()) + s) * comptime!(bp.tile_pitch())
                + UNIT_POS_X as usize % 4 * comptime!(bp.block_pitch())
                + product::first_row(tile);
            #[unroll]
            for r in 0..comptime!(tile.row_tiles * 2) {
                let mut share = f32::new(0.0);
                let own = comptime!(bp.parts.min(bp.values()));
                #[unroll]
                for head in 0..comptime!(bp.values() / own) {
                    let mut largest = f32::new(0.0);
                    #[unroll]
                    for part in 0..own {
                        let i = comptime!(head * own + part);
                        let at = comptime!(r / 2 * tile.key_tiles + s * of_tile + i / 2);
                        let dot = sums.index(at)[comptime!(r % 2)].extract(comptime!(i % 2));
                        largest = max(largest, weight(dot, factor, shift[i], bp));
                    }
                    share += largest;
                }
                exchange[to + comptime!(r * 8)] = share;
            }
        }
        sync_cube();
        add(&mut exchange, &bounds, shares, row, blocks, base, bp);
        sync_cube();
        count_shares(&exchange, &bounds, &bins, base, bp);
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
