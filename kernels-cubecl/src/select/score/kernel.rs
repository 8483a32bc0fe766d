//! The cube's program: per variant a walk for the log-sum-exps, one for the means.

// A comptime condition is an `if` of its own: it decides what is compiled.
#![allow(clippy::collapsible_if)]

use cubecl::prelude::*;

use super::{ScoreBlueprint, rows, walk};
use crate::{
    attend::mma::exp2,
    select::{
        BLOCK,
        pack::{NOWHERE, Pack},
        product::{self, NOTHING},
    },
    table::{HeadRules, Window},
};

/// See the module documentation. `out` `[B, Hq, T, C]` is written everywhere; later variants read what
/// earlier ones wrote, each unit its own.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(super) fn score_blocks<E: Float, F: Float, N: Size>(
    query: &Tensor<Vector<E, N>>,
    pooled: &[Vector<F, N>],
    table: &[u32],
    rules: &[u32],
    weights: &[Vector<f32, N>],
    out: &mut [f32],
    cubes: u32,
    parts: u32,
    kv_heads: u32,
    packs: u32,
    heads_per_kv: u32,
    heads_per_index: u32,
    query_blocks: u32,
    key_blocks: u32,
    capacity: u32,
    scale: f32,
    seen: ComptimeOption<u32>,
    #[comptime] bp: ScoreBlueprint,
    #[define(E)] _elem: ElemType,
    #[define(F)] _staged: ElemType,
) {
    let tile = comptime!(bp.tile);
    let slots = comptime!(bp.slots as u32);
    let cube = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
    if cube >= cubes {
        terminate!();
    }
    let pack = rows::pack(table, cube, parts, kv_heads, packs, heads_per_kv, bp);
    let mut rows =
        Shared::<[Vector<F, N>]>::new_aligned_slice(comptime!(tile.rows() * bp.pitch()), 16usize);
    let mut keys =
        Shared::<[Vector<F, N>]>::new_aligned_slice(comptime!(tile.keys() * bp.pitch()), 16usize);
    let mut exchange = Shared::<[f32]>::new_slice(comptime!(bp.exchange()));
    let mut shifts = Shared::<[f32]>::new_slice(comptime!(bp.tile.rows()));
    let first = (pack.b * kv_heads + pack.kv_head) as usize
        * capacity as usize
        * comptime!(3 * bp.vectors());
    let factor = scale * f32::new(core::f32::consts::LOG2_E);

    // All rows of a unit are of one head.
    let first_row = product::first_row(tile);
    let head = pack.first_head + min(first_row as u32 % slots, pack.heads - 1);
    let rule = HeadRules::of((head / heads_per_index) as usize);
    let low = rule.sink(rules) / comptime!(BLOCK as u32);
    let window = rule.window(rules);
    let seen = Window::of(&seen);
    // Candidates of the unit's rows end here.
    let mut high = Array::<u32>::new(comptime!(tile.row_tiles * 2));
    #[unroll]
    for r in 0..comptime!(tile.row_tiles * 2) {
        let packed = (first_row + comptime!(r * 8)) as u32;
        high[r] = 0u32;
        if rows::row(&pack, packed, bp) != NOWHERE.runtime() {
            high[r] = rows::end(&pack, rows::block(&pack, packed, bp), window);
            if comptime!(seen.some) {
                // All that the rows see is local.
                if window >= seen.keys {
                    high[r] = 0u32;
                }
            }
        }
    }
    let end = min(
        rows::end(
            &pack,
            pack.first + comptime!((bp.blocks() - 1) as u32),
            0u32,
        ),
        key_blocks,
    );
    let begin = rows::begin(&pack, pack.first, &seen);
    let step = comptime!(tile.keys() as u32);
    let (sharers, row_pitch) = comptime!((tile.key_planes * 4, bp.row_pitch()));
    let sharer = UNIT_POS_Y as usize / comptime!(tile.row_planes) * 4 + UNIT_POS_X as usize % 4;

    #[unroll]
    for variant in 0..comptime!(bp.variants) {
        sync_cube();
        if comptime!(bp.of(variant).chunks() == 1) {
            walk::stage_rows(query, weights, &mut rows, &pack, 0usize, scale, variant, bp);
        }
        let mut maximum = Array::<f32>::new(comptime!(tile.row_tiles * 2));
        let mut sum = Array::<f32>::new(comptime!(tile.row_tiles * 2));
        #[unroll]
        for r in 0..comptime!(tile.row_tiles * 2) {
            maximum[r] = f32::new(NOTHING) * factor;
            sum[r] = f32::new(0.0);
        }
        let mut base = begin;
        while base < end {
            let mut sums = walk::scores(
                query, pooled, weights, &mut rows, &mut keys, &pack, first, base, end, scale,
                variant, bp,
            );
            #[unroll]
            for r in 0..comptime!(tile.row_tiles * 2) {
                let (m, h) = comptime!((r / 2, r % 2));
                rows::mask(&mut sums, &pack, base, low, high[r], scale, &seen, r, bp);
                let mut highest = maximum[r];
                #[unroll]
                for j in 0..comptime!(tile.key_tiles) {
                    let a = sums.index(comptime!(m * tile.key_tiles + j))[h];
                    highest = max(highest, max(a.extract(0usize), a.extract(1usize)) * factor);
                }
                let mut total = sum[r] * exp2(maximum[r] - highest, comptime!(bp.inline));
                let shift = f32::new(0.0) - highest;
                #[unroll]
                for j in 0..comptime!(tile.key_tiles) {
                    let a = sums.index(comptime!(m * tile.key_tiles + j))[h];
                    total += product::weight(a.extract(0usize), factor, shift, bp.inline)
                        + product::weight(a.extract(1usize), factor, shift, bp.inline);
                }
                maximum[r] = highest;
                sum[r] = total;
            }
            base += step;
        }

        // Log-sum-exps, as exponents of 2.
        #[unroll]
        for r in 0..comptime!(tile.row_tiles * 2) {
            let local = first_row + comptime!(r * 8);
            exchange[sharer * row_pitch + local] = maximum[r];
            exchange[(sharers + sharer) * row_pitch + local] = sum[r];
        }
        sync_cube();
        merge(&exchange, &mut shifts, factor, bp);
        sync_cube();

        base = begin;
        while base < end {
            let mut sums = walk::scores(
                query, pooled, weights, &mut rows, &mut keys, &pack, first, base, end, scale,
                variant, bp,
            );
            let to = UNIT_POS_Y as usize % comptime!(tile.row_planes)
                * comptime!(tile.row_tiles * 8)
                + UNIT_POS_X as usize / 4;
            #[unroll]
            for m in 0..comptime!(tile.row_tiles) {
                #[unroll]
                for h in 0..2usize {
                    let r = comptime!(2 * m + h);
                    rows::mask(&mut sums, &pack, base, low, high[r], scale, &seen, r, bp);
                }
                let at = first_row + comptime!(m * 16);
                let (shift, next) = (shifts[at], shifts[at + 8]);
                #[unroll]
                for j in 0..comptime!(tile.key_tiles) {
                    let a = sums.index(comptime!(m * tile.key_tiles + j));
                    #[unroll]
                    for c in 0..2usize {
                        let share = product::weight(a[0].extract(c), factor, shift, bp.inline)
                            + product::weight(a[1].extract(c), factor, next, bp.inline);
                        exchange[(to + comptime!(m * 8)) * comptime!(bp.column_pitch())
                            + product::first_key(tile)
                            + comptime!(j * 8 + c)] = share;
                    }
                }
            }
            sync_cube();
            write(
                &exchange,
                out,
                &pack,
                base,
                kv_heads * heads_per_kv,
                query_blocks,
                key_blocks,
                variant,
                bp,
            );
            base += step;
        }
        if comptime!(variant == 0) {
            clear(
                out,
                &pack,
                begin,
                base,
                kv_heads * heads_per_kv,
                query_blocks,
                key_blocks,
                &seen,
                bp,
            );
        }
    }
}

/// Merges what the units of every row have found into the shift of its exponents: minus its log-sum-exp, as an
/// exponent of 2.
#[cube]
fn merge(
    exchange: &Shared<[f32]>,
    shifts: &mut Shared<[f32]>,
    factor: f32,
    #[comptime] bp: ScoreBlueprint,
) {
    let tile = comptime!(bp.tile);
    let (sharers, row_pitch) = comptime!((tile.key_planes * 4, bp.row_pitch()));
    let mut local = UNIT_POS as usize;
    while local < comptime!(tile.rows()) {
        let mut highest = f32::new(NOTHING) * factor;
        #[unroll]
        for i in 0..sharers {
            highest = max(highest, exchange[i * row_pitch + local]);
        }
        let mut total = f32::new(0.0);
        #[unroll]
        for i in 0..sharers {
            let weight = exp2(
                exchange[i * row_pitch + local] - highest,
                comptime!(bp.inline),
            );
            total += weight * exchange[(sharers + i) * row_pitch + local];
        }
        let mut shift = f32::new(0.0);
        if total != 0.0 {
            let exponent = total.ln() * f32::new(core::f32::consts::LOG2_E);
            shift = f32::new(0.0) - highest - exponent;
        }
        shifts[local] = shift;
        local += comptime!(tile.units());
    }
}

/// Writes the means of the tile's key blocks from `base` on, or what is larger of them and an earlier
/// variant's.
#[cube]
#[allow(clippy::too_many_arguments)]
fn write(
    exchange: &Shared<[f32]>,
    out: &mut [f32],
    pack: &Pack,
    base: u32,
    heads: u32,
    query_blocks: u32,
    key_blocks: u32,
    #[comptime] variant: usize,
    #[comptime] bp: ScoreBlueprint,
) {
    let tile = comptime!(bp.tile);
    let (slots, keys) = comptime!((bp.slots, tile.keys()));
    let mut task = UNIT_POS as usize;
    while task < comptime!(bp.blocks() * bp.slots * tile.keys()) {
        let offset = task % keys;
        let slot = task / keys % slots;
        let in_cube = task / comptime!(bp.slots * tile.keys());
        let block = pack.first + in_cube as u32;
        let key_block = base + offset as u32;
        if (slot as u32) < pack.heads && block < query_blocks && key_block < key_blocks {
            let mut sum = f32::new(0.0);
            // The block's 16 rows of a head lie in `slots` blocks of 16, and there in every `slots`th pair.
            #[unroll]
            for i in 0..8usize {
                let row = in_cube * comptime!(8 * bp.slots) + slot + comptime!(i * bp.slots);
                sum += exchange[row * comptime!(bp.column_pitch()) + offset];
            }
            let mut mean = sum / f32::cast_from(max(rows::samples(pack, block), 1u32));
            let head = pack.b * heads + pack.first_head + slot as u32;
            let at =
                (head * query_blocks + block) as usize * key_blocks as usize + key_block as usize;
            if comptime!(variant > 0) {
                mean = max(mean, out[at]);
            }
            out[at] = mean;
        }
        task += comptime!(tile.units());
    }
}

/// Writes zeros to the key blocks outside `[begin, end)`.
#[cube]
#[allow(clippy::too_many_arguments)]
fn clear(
    out: &mut [f32],
    pack: &Pack,
    begin: u32,
    end: u32,
    heads: u32,
    query_blocks: u32,
    key_blocks: u32,
    seen: &Window,
    #[comptime] bp: ScoreBlueprint,
) {
    let units = comptime!(bp.tile.units() as u32);
    for in_cube in 0..comptime!(bp.blocks() as u32) {
        let block = pack.first + in_cube;
        if block < query_blocks {
            for slot in 0..pack.heads {
                let head = pack.b * heads + pack.first_head + slot;
                let at = (head * query_blocks + block) as usize * key_blocks as usize;
                if comptime!(seen.some) {
                    let mut key_block = UNIT_POS;
                    while key_block < min(begin, key_blocks) {
                        out[at + key_block as usize] = 0.0;
                        key_block += units;
                    }
                }
                let mut key_block = end + UNIT_POS;
                while key_block < key_blocks {
                    out[at + key_block as usize] = 0.0;
                    key_block += units;
                }
            }
        }
    }
}
