//! Shares of key blocks, and the bins at which they are cut.
//!
//! A cube owns some query tiles of a KV head. A unit takes every 128th block, multiplies its mean key with all
//! mean queries of the cube, which lie in shared memory, and keeps every row's maximum and sum; the units meet
//! once; then it multiplies again, since the products of long prompts fit nowhere, and adds up shares by
//! bins in units of 2^-24, then again by parts of the bin in which a cut falls. Blocks that are kept whatever their share count as kept from the start.

// A comptime condition is an `if` of its own: it decides what is compiled.
#![allow(clippy::collapsible_if)]

use cubecl::prelude::*;
use sparse_accelerate_contract::{
    QUERY_TILE,
    group::{BASE, BINS, LEVELS, MEAN_BLOCK},
};

use super::{Blueprint, RANK_SHIFT, Tile, UNITS, aim, bin};
use crate::{
    attend::mma::exp2,
    select::{
        fixed::{fixed, scaled, score},
        product::NOTHING,
    },
    table::{HeadRules, Span, Window},
};

/// Units that share the search for a row's maximum or the sum of its parts.
pub(super) const PARTS: usize = 8;
/// Rows of a tile that are in flight at once.
const AT_ONCE: usize = 8;

/// Writes, of every tile, the shares of its candidates to `shares` `[B, Hk, tiles, blocks]` (others are left)
/// and its cuts to `cuts` `[B, Hk, tiles, LEVELS]`. `means` `[B, Hk, capacity, d]`.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(super) fn share_blocks<E: Float, N: Size>(
    query: &Tensor<Vector<E, N>>,
    means: &[Vector<E, N>],
    spans: &[u32],
    rules: &[u32],
    shares: &mut [f32],
    cuts: &mut [u32],
    cubes: u32,
    parts: u32,
    kv_heads: u32,
    tiles: u32,
    blocks: u32,
    capacity: u32,
    scale: f32,
    window: ComptimeOption<u32>,
    #[comptime] bp: Blueprint,
    #[define(E)] _elem: ElemType,
) {
    let cube = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
    if cube >= cubes {
        terminate!();
    }
    let (heads, rows) = comptime!((bp.heads, bp.rows()));
    // The last tiles, which have most candidates, come first.
    let first_tile = (parts - 1 - cube % parts) * comptime!(bp.tiles as u32);
    let flat = cube / parts;
    let (b, kv_head) = (flat / kv_heads, flat % kv_heads);
    let span = Span::of(spans, b);
    let rule = HeadRules::of(kv_head as usize);
    let window = Window::of(&window);
    let unit = UNIT_POS as usize;

    let mut mean = Shared::<[Vector<f32, N>]>::new_slice(comptime!(bp.rows() * bp.vectors()));
    let mut exchange = Shared::<[f32]>::new_slice(comptime!(bp.rows() * UNITS));
    let mut board = Shared::<[f32]>::new_slice(comptime!(bp.rows() * (PARTS + 1)));
    let bins = Shared::<[Atomic<u32>]>::new_slice(comptime!(bp.tiles * (BINS + 1)));
    let factor = scale * f32::new(core::f32::consts::LOG2_E);
    let place = Place {
        b,
        kv_head,
        first_tile,
        span,
        rule,
    };
    mean_queries(query, &mut mean, &place, rules, factor, &window, bp);
    let mut at = unit;
    while at < comptime!(bp.tiles * (BINS + 1)) {
        bins[at].store(0u32);
        at += UNITS;
    }
    sync_cube();

    let begin = Tile::new(&place.span, &place.rule, rules, first_tile, &window).low;
    let last = min(first_tile + comptime!(bp.tiles as u32), tiles) - 1;
    let mut end = Tile::new(&place.span, &place.rule, rules, last, &window).high;
    if end == 0 {
        // The cube's last tiles may be past the sequence's rows.
        end = place.span.kv_len.div_ceil(comptime!(MEAN_BLOCK as u32));
    }
    let head_at = flat as usize * capacity as usize * comptime!(bp.vectors());
    let mut maximum = Array::<f32>::new(rows);
    let mut sum = Array::<f32>::new(rows);
    let mut dots = Array::<f32>::new(rows);
    #[unroll]
    for r in 0..rows {
        maximum[r] = f32::new(NOTHING);
        sum[r] = f32::new(0.0);
    }
    let mut block = begin + UNIT_POS;
    while block < end {
        multiply(&mut dots, &mean, means, head_at, block, bp);
        #[unroll]
        for t in 0..comptime!(bp.tiles) {
            let tile = Tile::new(
                &place.span,
                &place.rule,
                rules,
                first_tile + comptime!(t as u32),
                &window,
            );
            if tile.has(block) {
                #[unroll]
                for h in 0..heads {
                    let r = comptime!(t * heads + h);
                    let highest = max(maximum[r], dots[r]);
                    sum[r] = sum[r] * exp2(maximum[r] - highest, comptime!(bp.inline))
                        + exp2(dots[r] - highest, comptime!(bp.inline));
                    maximum[r] = highest;
                }
            }
        }
        block += comptime!(UNITS as u32);
    }

    // The units of a row meet: for its maximum, then for its sum.
    #[unroll]
    for r in 0..rows {
        exchange[comptime!(r * UNITS) + unit] = maximum[r];
    }
    gather(&exchange, &mut board, true, bp);
    #[unroll]
    for r in 0..rows {
        let weight = exp2(
            maximum[r] - board[comptime!(rows * PARTS + r)],
            comptime!(bp.inline),
        );
        exchange[comptime!(r * UNITS) + unit] = sum[r] * weight;
        maximum[r] = board[comptime!(rows * PARTS + r)];
    }
    gather(&exchange, &mut board, false, bp);
    #[unroll]
    for r in 0..rows {
        let exponent =
            board[comptime!(rows * PARTS + r)].ln() * f32::new(core::f32::consts::LOG2_E);
        // What is added to a product, that its power of 2 be the row's share.
        sum[r] = f32::new(0.0) - maximum[r] - exponent;
    }

    let mut block = begin + UNIT_POS;
    while block < end {
        multiply(&mut dots, &mean, means, head_at, block, bp);
        #[unroll]
        for t in 0..comptime!(bp.tiles) {
            let tile = Tile::new(
                &place.span,
                &place.rule,
                rules,
                first_tile + comptime!(t as u32),
                &window,
            );
            if tile.has(block) {
                let mut share = f32::new(0.0);
                #[unroll]
                for h in 0..heads {
                    let r = comptime!(t * heads + h);
                    share += exp2(dots[r] + sum[r], comptime!(bp.inline));
                }
                share *= comptime!(1.0 / bp.heads as f32);
                let row = (flat * tiles + first_tile + comptime!(t as u32)) as usize;
                shares[row * blocks as usize + block as usize] = share;
                let clean = score(u32::reinterpret(share));
                let mut to = comptime!(BINS as u32).runtime();
                if !tile.forced(block) {
                    to = bin(clean);
                }
                let units = fixed(clean, 0u32);
                if units > 0 {
                    bins[comptime!(t * (BINS + 1)) + to as usize].fetch_add(units);
                }
            }
        }
        block += comptime!(UNITS as u32);
    }
    sync_cube();

    let mut found = Shared::<[u32]>::new_slice(comptime!(3 * bp.tiles * LEVELS));
    find_bins(&bins, &mut found, &place.rule, rules, bp);
    let fine = Shared::<[Atomic<u32>]>::new_slice(comptime!(bp.tiles * LEVELS * BINS));
    let mut at = unit;
    while at < comptime!(bp.tiles * LEVELS * BINS) {
        fine[at].store(0u32);
        at += UNITS;
    }
    sync_cube();

    let mut block = begin + UNIT_POS;
    while block < end {
        #[unroll]
        for t in 0..comptime!(bp.tiles) {
            let tile = Tile::new(
                &place.span,
                &place.rule,
                rules,
                first_tile + comptime!(t as u32),
                &window,
            );
            if tile.has(block) && !tile.forced(block) {
                let row = (flat * tiles + first_tile + comptime!(t as u32)) as usize;
                let share = shares[row * blocks as usize + block as usize];
                let clean = score(u32::reinterpret(share));
                let units = fixed(clean, 0u32);
                let part = (clean >> comptime!(RANK_SHIFT)) as usize % BINS;
                #[unroll]
                for level in 0..LEVELS {
                    let pair = comptime!(t * LEVELS + level);
                    if units > 0 && bin(clean) == found[pair] {
                        fine[pair * BINS + part].fetch_add(units);
                    }
                }
            }
        }
        block += comptime!(UNITS as u32);
    }
    sync_cube();

    let row = flat * tiles + first_tile;
    let count = min(tiles - first_tile, comptime!(bp.tiles as u32)) as usize;
    write_cuts(&fine, &found, cuts, row, count, bp);
}

/// The tiles of a cube.
#[derive(CubeType)]
struct Place {
    b: u32,
    kv_head: u32,
    first_tile: u32,
    span: Span,
    rule: HeadRules,
}

/// Writes the mean queries of the cube's tiles and heads, scaled to exponents of 2.
#[cube]
fn mean_queries<E: Float, N: Size>(
    query: &Tensor<Vector<E, N>>,
    mean: &mut Shared<[Vector<f32, N>]>,
    place: &Place,
    rules: &[u32],
    factor: f32,
    window: &Window,
    #[comptime] bp: Blueprint,
) {
    let heads = comptime!(bp.heads);
    let first_head = place.kv_head * comptime!(bp.heads as u32);
    let mut task = UNIT_POS as usize;
    while task < comptime!(bp.rows() * bp.vectors()) {
        let (row, vector) = (
            task / comptime!(bp.vectors()),
            task % comptime!(bp.vectors()),
        );
        let tile = Tile::new(
            &place.span,
            &place.rule,
            rules,
            place.first_tile + (row / heads) as u32,
            window,
        );
        let head = first_head + (row % heads) as u32;
        let at = place.b as usize * query.stride(0) + head as usize * query.stride(1);
        let first = (tile.first - place.span.offset()) as usize;
        let mut sum = Vector::<f32, N>::new(f32::new(0.0));
        if tile.rows > 0 {
            for i in 0..comptime!(QUERY_TILE / AT_ONCE) {
                #[unroll]
                for u in 0..AT_ONCE {
                    let row = (i * AT_ONCE + u) as u32;
                    let from = first + min(row, tile.rows - 1) as usize;
                    let x = query[(at + from * query.stride(2)) / comptime!(bp.width) + vector];
                    if row < tile.rows {
                        sum += Vector::cast_from(x);
                    }
                }
            }
        }
        let share = factor / f32::cast_from(max(tile.rows, 1u32));
        mean[task] = sum * Vector::new(share);
        task += UNITS;
    }
}

/// Finds the bin in which each level's cut falls, what is kept above it, what is needed: the three parts of
/// `found`, `[tiles, LEVELS]` each.
#[cube]
fn find_bins(
    bins: &Shared<[Atomic<u32>]>,
    found: &mut Shared<[u32]>,
    rule: &HeadRules,
    rules: &[u32],
    #[comptime] bp: Blueprint,
) {
    let pairs = comptime!(bp.tiles * LEVELS);
    let mut pair = UNIT_POS as usize;
    while pair < pairs {
        let at = pair / LEVELS * comptime!(BINS + 1);
        let mut kept = bins[at + BINS].load();
        let mut total = kept;
        for i in 0..BINS {
            total += bins[at + i].load();
        }
        let needed = scaled(aim(rule, rules, (pair % LEVELS) as u32), total);
        let mut bin = comptime!(BINS as u32).runtime();
        let mut above = kept;
        while kept < needed && bin > 0 {
            bin -= 1;
            above = kept;
            kept += bins[at + bin as usize].load();
        }
        // Shares that are not finite say nothing: all is kept.
        if total == 0 {
            bin = 0u32;
        }
        found[pair] = bin;
        found[pairs + pair] = above;
        found[2 * pairs + pair] = needed;
        pair += UNITS;
    }
}

/// Writes the ranks at which the levels of `count` tiles cut, from index row `row` on.
#[cube]
fn write_cuts(
    fine: &Shared<[Atomic<u32>]>,
    found: &Shared<[u32]>,
    cuts: &mut [u32],
    row: u32,
    count: usize,
    #[comptime] bp: Blueprint,
) {
    let pairs = comptime!(bp.tiles * LEVELS);
    let mut pair = UNIT_POS as usize;
    while pair < count * LEVELS {
        let bin = found[pair];
        let mut cut = 0u32;
        if bin == comptime!(BINS as u32) {
            cut = u32::MAX.runtime();
        } else if bin > 0 {
            let mut kept = found[pairs + pair];
            let mut part = comptime!(BINS as u32).runtime();
            while kept < found[2 * pairs + pair] && part > 0 {
                part -= 1;
                kept += fine[pair * BINS + part as usize].load();
            }
            cut = ((bin + comptime!(BASE)) << 8) + part;
        }
        cuts[row as usize * LEVELS + pair] = cut;
        pair += UNITS;
    }
}

/// Products of the mean queries and the mean key of a block, exponents of 2.
#[cube]
fn multiply<E: Float, N: Size>(
    dots: &mut Array<f32>,
    mean: &Shared<[Vector<f32, N>]>,
    means: &[Vector<E, N>],
    head_at: usize,
    block: u32,
    #[comptime] bp: Blueprint,
) {
    let vectors = comptime!(bp.vectors());
    #[unroll]
    for r in 0..comptime!(bp.rows()) {
        dots[r] = f32::new(0.0);
    }
    let at = head_at + block as usize * vectors;
    for v in 0..vectors {
        let k = Vector::<f32, N>::cast_from(means[at + v]);
        #[unroll]
        for r in 0..comptime!(bp.rows()) {
            let q = mean[comptime!(r * vectors) + v];
            #[unroll]
            for e in 0..comptime!(bp.width) {
                dots[r] = fma(q.extract(e), k.extract(e), dots[r]);
            }
        }
    }
}

/// Brings the entries of all units together, row by row, into the last entries of the board: their maximum, or
/// their sum. Every unit must call it; what it wrote to the exchange must be read by nobody else before.
#[cube]
fn gather(
    exchange: &Shared<[f32]>,
    board: &mut Shared<[f32]>,
    #[comptime] maximum: bool,
    #[comptime] bp: Blueprint,
) {
    let rows = comptime!(bp.rows());
    let each = comptime!(UNITS / PARTS);
    sync_cube();
    let mut task = UNIT_POS as usize;
    while task < comptime!(rows * PARTS) {
        let from = task * each;
        let mut found = exchange[from];
        for i in 1..each {
            found = join(found, exchange[from + i], maximum);
        }
        board[task] = found;
        task += UNITS;
    }
    sync_cube();
    let mut row = UNIT_POS as usize;
    while row < rows {
        let mut found = board[row * PARTS];
        for i in 1..PARTS {
            found = join(found, board[row * PARTS + i], maximum);
        }
        board[comptime!(rows * PARTS) + row] = found;
        row += UNITS;
    }
    sync_cube();
}

#[cube]
fn join(a: f32, b: f32, #[comptime] maximum: bool) -> f32 {
    if comptime!(maximum) { max(a, b) } else { a + b }
}
