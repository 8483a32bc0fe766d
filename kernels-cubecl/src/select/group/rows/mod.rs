//! Exact attention of the sampled rows, apart by the level that keeps a key: what a choice changes in their outputs.
//!
//! ```text
//! part_c(r) = (sum_{j of class c} 2^(z_rj - m), sum_{j of class c} 2^(z_rj - m) v_j)     z_rj = log2(e) scale q_r . k_j
//! ```
//!
//! Class 0 is what the first level keeps, class 1 what the second keeps beside it, class 2 the others; `m` is the row's
//! largest exponent of a split of the keys. A cube takes packed rows of query heads that share a KV head and one
//! split, a step of `keys` keys after the other: scores, a maximum over the units that share a row, probabilities
//! through shared memory, their product with the values, which is added to the class of row and block. K and V
//! are read once; where the device copies on its own, keys come during the softmax of the step before, values
//! during the scores.

// A comptime condition is an `if` of its own: it decides what is compiled.
#![allow(clippy::collapsible_if)]

mod blueprint;
mod copy;
mod plan;
mod row;
mod weigh;

use cubecl::prelude::*;
use sparse_accelerate_contract::group::{LEVELS, MEAN_BLOCK, WILD};

pub(super) use blueprint::RowsBlueprint;
pub(super) use plan::prepare;
use row::Row;

use super::Tile;
use crate::{
    attend::mma::{copy::address, exp2, tile::zeros},
    select::{
        fixed::INFINITY,
        pack::Pack,
        probe::{kernel, rows},
        product::{self, NOTHING, Sums},
    },
    table::{Span, Window},
};

/// Classes of keys: those of each level, and the others.
pub(super) const CLASSES: usize = LEVELS + 1;
/// Sums of a row: of the classes, and of the sinks.
const SUMS: usize = CLASSES + 1;
/// First float of a packed row's outputs.
pub(super) const OUTPUTS_AT: usize = 8;

/// Writes `parts`, see [`Split`](sparse_accelerate_contract::group::Split); `probes` are the spans of the rows that are sampled. A row that sees nothing of a split has
/// sums of 0 there. Sums and exponents are at least [`WILD`] where a score is not finite; a value that
/// is not counts too for rows before it in its step, whose heads are then dense as well.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(super) fn attend_rows<E: Float, F: Float, N: Size>(
    query: &Tensor<Vector<E, N>>,
    key: &Tensor<Vector<E, N>>,
    value: &Tensor<Vector<E, N>>,
    shares: &[f32],
    cuts: &[u32],
    spans: &[u32],
    probes: &[u32],
    rules: &[u32],
    parts: &mut [f32],
    cubes: u32,
    kv_heads: u32,
    heads_per_kv: u32,
    tiles: u32,
    blocks: u32,
    scale: f32,
    window: ComptimeOption<u32>,
    #[comptime] bp: RowsBlueprint,
    #[define(E)] _elem: ElemType,
    #[define(F)] _staged: ElemType,
) {
    let tile = comptime!(bp.tile());
    let cube = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
    if cube >= cubes {
        terminate!();
    }
    let row_tiles = comptime!(bp.row_tiles() as u32);
    let splits = comptime!(bp.split.splits as u32);
    let mut pack = Pack::new(
        probes,
        cube,
        comptime!((bp.row_tiles() * bp.split.splits) as u32),
        0u32,
        kv_heads,
        comptime!(bp.split.packs as u32),
        heads_per_kv,
        bp.split.slots,
    );
    let row_tile = cube % row_tiles;
    let split = cube / row_tiles % splits;
    let window = Window::of(&window);
    let span = Span::of(spans, pack.b);
    let index_heads = kv_heads * heads_per_kv / comptime!(bp.sharing as u32);

    let mut queries =
        Shared::<[Vector<F, N>]>::new_aligned_slice(comptime!(tile.rows() * tile.pitch()), 16usize);
    let mut keys =
        Shared::<[Vector<F, N>]>::new_aligned_slice(comptime!(tile.keys() * tile.pitch()), 16usize);
    let mut values = Shared::<[Vector<F, N>]>::new_aligned_slice(comptime!(bp.values()), 16usize);
    let mut wide = Shared::<[Vector<F, N>]>::new_aligned_slice(comptime!(bp.wide()), 16usize);
    let mut narrow = Shared::<[f32]>::new_slice(comptime!(bp.narrow()));
    let mut exchange = Shared::<[f32]>::new_slice(comptime!(bp.exchange()));

    let first_row = product::first_row(tile);
    let row_pitch = comptime!(bp.row_pitch());
    let sharers = comptime!(bp.sharers());
    let factor = scale * f32::new(core::f32::consts::LOG2_E);

    let mut own = Sequence::<Row>::new();
    let mut highest = Array::<f32>::new(2usize);
    let mut alphas = Array::<f32>::new(2usize);
    let mut classes = Array::<u32>::new(2usize);
    let mut wild = Array::<u32>::new(2usize);
    let mut sums = Array::<f32>::new(comptime!(2 * SUMS));
    #[unroll]
    for h in 0..2usize {
        let packed =
            row_tile * comptime!(tile.rows() as u32) + (first_row + comptime!(h * 8)) as u32;
        own.push(Row::new(
            &pack,
            packed,
            &span,
            rules,
            cuts,
            index_heads,
            tiles,
            blocks,
            &window,
            bp,
        ));
        highest[h] = f32::new(NOTHING);
        wild[h] = 0u32;
        #[unroll]
        for i in 0..SUMS {
            sums[comptime!(h * SUMS + i)] = f32::new(0.0);
        }
    }
    let mut out = zeros(comptime!(CLASSES * tile.chunks() * bp.columns()));

    // The last row of the tile sees most; its keys are those of this split.
    let last = rows::last_end(&pack, row_tile, bp.probe);
    let all = pack.span.kv_len.div_ceil(comptime!(MEAN_BLOCK as u32));
    let each = all.div_ceil(splits) * comptime!(MEAN_BLOCK as u32);
    let until = min((split + 1) * each, last);
    pack.first = visible_from(split * each, &span, &window);
    if comptime!(bp.whole()) {
        kernel::stage_rows(query, &mut queries, &pack, row_tile, 0usize, bp.probe);
    }
    let mut keys_at = 0u32;
    let mut values_at = 0u32;
    if comptime!(bp.asynchronous()) {
        keys_at = address(&keys);
        values_at = address(&values);
        copy::begin(key, keys_at, &pack, pack.first, until, bp);
        copy::begin(value, values_at, &pack, pack.first, until, bp);
    }
    while pack.first < until {
        let next = pack.first + comptime!(tile.keys() as u32);
        let block = pack.first / comptime!(MEAN_BLOCK as u32);
        // Asked for early: their loads wait beside those of the keys.
        #[unroll]
        for h in 0..2usize {
            classes[h] = own.index(h).class(shares, block);
        }
        let mut s = scores(
            query,
            key,
            value,
            &mut queries,
            &mut keys,
            &mut values,
            &pack,
            row_tile,
            bp,
        );
        maxima(&mut s, &own, &mut wild, &mut exchange, pack.first, bp);
        sync_cube();
        if comptime!(bp.asynchronous()) {
            copy::begin(key, keys_at, &pack, next, until, bp);
        }
        #[unroll]
        for h in 0..2usize {
            let local = first_row + comptime!(h * 8);
            let before = highest[h];
            let mut maximum = before;
            #[unroll]
            for i in 0..sharers {
                maximum = max(maximum, exchange[i * row_pitch + local]);
            }
            highest[h] = maximum;
            let alpha = exp2((before - maximum) * factor, comptime!(bp.probe.inline));
            alphas[h] = alpha;
            let row = own.index(h);
            let class = classes[h];
            let sum = probabilities(
                &s,
                &mut wide,
                &mut narrow,
                factor,
                f32::new(0.0) - maximum * factor,
                local,
                h,
                bp,
            );
            #[unroll]
            for i in 0..SUMS {
                let mut counts = class == comptime!(i as u32);
                if comptime!(i == CLASSES) {
                    counts = block < row.tile.sinks;
                }
                let at = comptime!(h * SUMS + i);
                sums[at] = fma(sums[at], alpha, select(counts, sum, f32::new(0.0)));
            }
        }
        #[unroll]
        for chunk in 0..comptime!(tile.chunks()) {
            if comptime!(bp.whole()) {
                if comptime!(bp.asynchronous()) {
                    copy::land(1u32);
                } else {
                    sync_cube();
                }
                weigh::by_matrix_units::<F, N>(&wide, &values, &mut out, &alphas, &classes, bp);
            } else {
                sync_cube();
                kernel::stage_keys(value, &mut keys, &pack, chunk, bp.probe);
                sync_cube();
                weigh::by_units::<F, N>(&narrow, &keys, &mut out, &alphas, &classes, chunk, bp);
            }
        }
        if comptime!(bp.asynchronous()) {
            sync_cube();
            copy::begin(value, values_at, &pack, next, until, bp);
        }
        pack.first = next;
    }

    sync_cube();
    finish(
        &out,
        &sums,
        &wild,
        &highest,
        factor,
        &mut exchange,
        parts,
        cube,
        bp,
    );
}

/// Gives the first block at or after `key` of which a row of the span may see something.
#[cube]
fn visible_from(key: u32, span: &Span, window: &Window) -> u32 {
    let mut first = key;
    if comptime!(window.some) {
        let seen = window.first_key(span.offset());
        first = max(key, seen - seen % comptime!(MEAN_BLOCK as u32));
    }
    first
}

/// Scores of the step that begins at the pack's first key, unscaled. By asynchronous copies its keys have landed, and its values are
/// on their way.
#[cube]
#[allow(clippy::too_many_arguments)]
fn scores<E: Float, F: Float, N: Size>(
    query: &Tensor<Vector<E, N>>,
    key: &Tensor<Vector<E, N>>,
    value: &Tensor<Vector<E, N>>,
    queries: &mut Shared<[Vector<F, N>]>,
    keys: &mut Shared<[Vector<F, N>]>,
    values: &mut Shared<[Vector<F, N>]>,
    pack: &Pack,
    row_tile: u32,
    #[comptime] bp: RowsBlueprint,
) -> Sums {
    let tile = comptime!(bp.tile());
    let mut s = product::zeros(tile);
    for chunk in 0..comptime!(tile.chunks()) {
        if comptime!(bp.asynchronous()) {
            copy::land(1u32);
        } else {
            sync_cube();
            kernel::stage_keys(key, keys, pack, chunk, bp.probe);
            if comptime!(bp.whole()) {
                kernel::stage_keys(value, values, pack, chunk, bp.probe);
            } else {
                kernel::stage_rows(query, queries, pack, row_tile, chunk, bp.probe);
            }
            sync_cube();
        }
        product::accumulate(&*queries, &*keys, &mut s, tile);
    }
    s
}

/// Hides from the unit's rows what they do not see of the step from key `at` on, and leaves its maxima to the units that share
/// them.
#[cube]
fn maxima(
    s: &mut Sums,
    own: &Sequence<Row>,
    wild: &mut Array<u32>,
    exchange: &mut Shared<[f32]>,
    at: u32,
    #[comptime] bp: RowsBlueprint,
) {
    let tile = comptime!(bp.tile());
    let sharer = sharer(bp);
    let first_row = product::first_row(tile);
    #[unroll]
    for h in 0..2usize {
        let row = own.index(h);
        let low = max(row.low, at) - at;
        let high = max(row.end, at) - at;
        kernel::mask_row(s, low, high, 0usize, h, bp.probe);
        let mut maximum = f32::new(NOTHING);
        #[unroll]
        for j in 0..comptime!(tile.key_tiles) {
            let a = s.index(j)[h];
            maximum = max(maximum, max(a.extract(0usize), a.extract(1usize)));
            if not_finite(a.extract(0usize)) || not_finite(a.extract(1usize)) {
                wild[h] = 1u32.runtime();
            }
        }
        exchange[sharer * comptime!(bp.row_pitch()) + first_row + comptime!(h * 8)] = maximum;
    }
}

/// Place of this unit among those that share its rows.
#[cube]
fn sharer(#[comptime] bp: RowsBlueprint) -> usize {
    UNIT_POS_Y as usize / comptime!(bp.tile().row_planes) * 4 + UNIT_POS_X as usize % 4
}

/// Writes what the cube has found of its rows; their exponents stand behind the sums in the exchange.
#[cube]
#[allow(clippy::too_many_arguments)]
fn finish(
    out: &Sums,
    sums: &Array<f32>,
    wild: &Array<u32>,
    highest: &Array<f32>,
    factor: f32,
    exchange: &mut Shared<[f32]>,
    parts: &mut [f32],
    cube: u32,
    #[comptime] bp: RowsBlueprint,
) {
    let tile = comptime!(bp.tile());
    let (sharers, row_pitch) = comptime!((bp.sharers(), bp.row_pitch()));
    let first_row = product::first_row(tile);
    #[unroll]
    for h in 0..2usize {
        let local = first_row + comptime!(h * 8);
        #[unroll]
        for i in 0..SUMS {
            exchange[(i * sharers + sharer(bp)) * row_pitch + local] = select(
                wild[h] == 1u32,
                f32::new(WILD),
                sums[comptime!(h * SUMS + i)],
            );
        }
        if sharer(bp) == 0 {
            exchange[SUMS * sharers * row_pitch + local] = highest[h] * factor;
        }
        let row = cube as usize * comptime!(tile.rows()) + local;
        weigh::write(out, parts, row * comptime!(bp.split.pitch), h, bp);
    }
    sync_cube();
    let mut task = UNIT_POS as usize;
    while task < comptime!(SUMS * tile.rows()) {
        let (i, local) = (task / comptime!(tile.rows()), task % comptime!(tile.rows()));
        let mut sum = f32::new(0.0);
        #[unroll]
        for sharer in 0..sharers {
            sum += exchange[(i * sharers + sharer) * row_pitch + local];
        }
        let row = cube as usize * comptime!(tile.rows()) + local;
        let to = row * comptime!(bp.split.pitch);
        parts[to + 1 + i] = sum;
        if i == 0 {
            // What is not finite outweighs the other splits.
            let exponent = exchange[SUMS * sharers * row_pitch + local];
            parts[to] = select(sum >= f32::new(WILD), f32::new(WILD), exponent);
        }
        task += comptime!(tile.units());
    }
}

/// Writes the probabilities of a unit's row `h` for the other units, and gives their sum.
#[cube]
#[allow(clippy::too_many_arguments)]
fn probabilities<F: Float, N: Size>(
    s: &Sums,
    wide: &mut Shared<[Vector<F, N>]>,
    narrow: &mut Shared<[f32]>,
    factor: f32,
    shift: f32,
    local: usize,
    #[comptime] h: usize,
    #[comptime] bp: RowsBlueprint,
) -> f32 {
    let tile = comptime!(bp.tile());
    let inline = comptime!(bp.probe.inline);
    let key = product::first_key(tile);
    let mut sum = f32::new(0.0);
    #[unroll]
    for j in 0..comptime!(tile.key_tiles) {
        let a = s.index(j)[h];
        let x = product::weight(a.extract(0usize), factor, shift, inline);
        let y = product::weight(a.extract(1usize), factor, shift, inline);
        sum += x + y;
        if comptime!(tile.mma) {
            let mut pair = product::Pair::<f32>::empty();
            pair.insert(0usize, x);
            pair.insert(1usize, y);
            let pairs = wide.with_vector_size_mut::<Const<2>>();
            let at = local * comptime!(bp.wide_pitch() * product::MMA_WIDTH / 2) + key / 2;
            pairs[at + comptime!(j * 4)] = Vector::cast_from(pair);
        } else {
            let at = local * comptime!(bp.narrow_pitch()) + key + comptime!(j * 8);
            narrow[at] = x;
            narrow[at + 1] = y;
        }
    }
    sum
}

/// Tells by its bits whether a number is an infinity or none: compilers may suppose that there are no such.
#[cube]
pub(super) fn not_finite(x: f32) -> bool {
    u32::reinterpret(x) & 0x7fff_ffff >= INFINITY
}
