//! Second pass: attention of the probe rows by column and by slash, over one tile of keys.

// A comptime condition is an `if` of its own: it decides what is compiled.
#![allow(clippy::collapsible_if)]

use cubecl::prelude::*;

use super::{
    ProbeBlueprint, kernel,
    rows::{self, valid_probes},
};
use crate::{
    select::{
        BLOCK, GRANULE, PROBES,
        pack::{NOWHERE, Pack},
        product,
    },
    table::{HeadRules, Window},
};

/// Share of a row, in the fixed point of the slashes.
const ONE: f32 = (1u32 << 20) as f32;

/// Writes the columns of the tile of keys and adds to the slashes. `keys_all` is `L'`, `buckets` `SB`.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(super) fn probe_shares<E: Float, F: Float, N: Size>(
    query: &Tensor<Vector<E, N>>,
    key: &Tensor<Vector<E, N>>,
    table: &[u32],
    rules: &[u32],
    lse: &[f32],
    columns: &mut [f32],
    slashes: &[Atomic<u32>],
    cubes: u32,
    key_tiles: u32,
    kv_heads: u32,
    packs: u32,
    heads_per_kv: u32,
    heads_per_index: u32,
    keys_all: u32,
    buckets: u32,
    scale: f32,
    seen: ComptimeOption<u32>,
    #[comptime] bp: ProbeBlueprint,
    #[define(E)] _elem: ElemType,
    #[define(F)] _staged: ElemType,
) {
    let tile = comptime!(bp.tile);
    let slots = comptime!(bp.slots as u32);
    let cube = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
    if cube >= cubes {
        terminate!();
    }
    let pack = rows::pack(table, cube, key_tiles, kv_heads, packs, heads_per_kv, bp);
    let all_heads = pack.b * kv_heads * heads_per_kv;
    let mut rows =
        Shared::<[Vector<F, N>]>::new_aligned_slice(comptime!(tile.rows() * tile.pitch()), 16usize);
    let mut keys =
        Shared::<[Vector<F, N>]>::new_aligned_slice(comptime!(tile.keys() * tile.pitch()), 16usize);
    let mut exchange = Shared::<[f32]>::new_slice(comptime!(bp.exchange()));
    let seen = Window::of(&seen);
    if comptime!(tile.chunks() == 1) {
        if comptime!(seen.some) {
            if !rows::hidden(&pack, &seen, bp) {
                kernel::stage_keys(key, &mut keys, &pack, 0usize, bp);
            }
        } else {
            kernel::stage_keys(key, &mut keys, &pack, 0usize, bp);
        }
    }
    let factor = scale * f32::new(core::f32::consts::LOG2_E);

    // All rows of a unit are of one head.
    let first_row = product::first_row(tile);
    let slot = first_row as u32 % slots;
    let head = pack.first_head + min(slot, pack.heads - 1);
    let rule = HeadRules::of((head / heads_per_index) as usize);
    let sink = rule.sink(rules);
    let window = rule.window(rules);
    let low = max(sink, pack.first) - pack.first;

    let group_tiles = comptime!((bp.row_tiles() / 2) as u32);
    let mut column = Array::<f32>::new(comptime!(tile.key_tiles * 2));
    for group in 0..2u32 {
        #[unroll]
        for c in 0..comptime!(tile.key_tiles * 2) {
            column[c] = f32::new(0.0);
        }
        for in_group in 0..group_tiles {
            let row_tile = group * group_tiles + in_group;
            if rows::sees(&pack, row_tile, &seen, bp) {
                let mut sums =
                    kernel::scores(query, key, &mut rows, &mut keys, &pack, row_tile, bp);
                let first_packed = row_tile * comptime!(tile.rows() as u32);
                #[unroll]
                for m in 0..comptime!(tile.row_tiles) {
                    #[unroll]
                    for h in 0..2usize {
                        let local = first_row + comptime!(m * 16 + h * 8);
                        let packed = first_packed + local as u32;
                        let row = rows::row(&pack, packed, bp);
                        let mut high = 0u32;
                        let mut shift = f32::new(0.0);
                        let mut position = 0u32;
                        if row != NOWHERE.runtime() {
                            position = pack.span.offset() + row;
                            let end = max(position + 1, window) - window;
                            high = max(end, pack.first) - pack.first;
                            let at = (all_heads + head) * comptime!(PROBES as u32) + packed / slots;
                            shift = lse[at as usize] * f32::new(-core::f32::consts::LOG2_E);
                        }
                        if comptime!(seen.some) {
                            let low = max(low, rows::low(&pack, position, &seen));
                            kernel::mask_row(&mut sums, low, high, m, h, bp);
                        } else {
                            kernel::mask_row(&mut sums, low, high, m, h, bp);
                        }
                        spread(
                            &sums,
                            &mut column,
                            &mut exchange,
                            local,
                            position % comptime!(GRANULE as u32),
                            factor,
                            shift,
                            m,
                            h,
                            bp,
                        );
                    }
                }
                sync_cube();
                add_slashes(
                    &exchange,
                    slashes,
                    &pack,
                    first_packed,
                    all_heads,
                    buckets,
                    bp,
                );
            }
        }
        sync_cube();
        write_columns(
            &column,
            &mut exchange,
            columns,
            &pack,
            group,
            all_heads,
            keys_all,
            bp,
        );
    }
}

/// Shares of one row of the unit: added to its columns, and left in the exchange, granule by granule of
/// keys, apart for the two buckets that a granule meets. `reach` is the last key of a granule, counted in
/// it, that has the nearer end of its bucket there: the row's position modulo 16.
#[cube]
#[allow(clippy::too_many_arguments)]
fn spread(
    sums: &product::Sums,
    column: &mut Array<f32>,
    exchange: &mut Shared<[f32]>,
    local: usize,
    reach: u32,
    factor: f32,
    shift: f32,
    #[comptime] m: usize,
    #[comptime] h: usize,
    #[comptime] bp: ProbeBlueprint,
) {
    let tile = comptime!(bp.tile);
    let parts = comptime!(bp.granules() + 1);
    let quarter = UNIT_POS_X as usize % 4;
    let mut slash = Array::<f32>::new(parts);
    #[unroll]
    for i in 0..parts {
        slash[i] = f32::new(0.0);
    }
    #[unroll]
    for j in 0..comptime!(tile.key_tiles) {
        let a = sums.index(comptime!(m * tile.key_tiles + j))[h];
        #[unroll]
        for c in 0..2usize {
            let share = product::weight(a.extract(c), factor, shift, bp.inline);
            column[comptime!(j * 2 + c)] += share;
            let within = quarter as u32 * 2 + comptime!((j % 2 * 8 + c) as u32);
            let far = select(within <= reach, share, f32::new(0.0));
            let near = select(within <= reach, f32::new(0.0), share);
            slash[comptime!(j / 2)] += far;
            slash[comptime!(j / 2 + 1)] += near;
        }
    }
    let first = UNIT_POS_Y as usize / comptime!(tile.row_planes) * parts;
    #[unroll]
    for i in 0..parts {
        exchange[((first + i) * 4 + quarter) * comptime!(bp.row_pitch()) + local] = slash[i];
    }
}

/// Adds what the rows of a row tile left: a row meets nine buckets. Bucket `k` ends in granule `k` of the
/// tile, and began in the one before.
#[cube]
fn add_slashes(
    exchange: &Shared<[f32]>,
    slashes: &[Atomic<u32>],
    pack: &Pack,
    first_packed: u32,
    all_heads: u32,
    buckets: u32,
    #[comptime] bp: ProbeBlueprint,
) {
    let tile = comptime!(bp.tile);
    let slots = comptime!(bp.slots as u32);
    let total = comptime!((BLOCK / GRANULE + 1) * tile.rows());
    let (granules, row_pitch) = comptime!((bp.granules(), bp.row_pitch()));
    let mut task = UNIT_POS as usize;
    while task < total {
        let local = task % comptime!(tile.rows());
        let k = task / comptime!(tile.rows());
        let packed = first_packed + local as u32;
        let row = rows::row(pack, packed, bp);
        if row != NOWHERE.runtime() {
            let granule = pack.first / comptime!(GRANULE as u32) + k as u32;
            let own = (pack.span.offset() + row) / comptime!(GRANULE as u32);
            if granule <= own {
                let mut sum = f32::new(0.0);
                #[unroll]
                for plane in 0..comptime!(tile.key_planes) {
                    if k >= comptime!(plane * granules) && k <= comptime!((plane + 1) * granules) {
                        let part =
                            k + comptime!(plane * (granules + 1)) - comptime!(plane * granules);
                        #[unroll]
                        for quarter in 0..4usize {
                            sum += exchange[(part * 4 + quarter) * row_pitch + local];
                        }
                    }
                }
                let count = u32::cast_from(fma(sum, f32::new(ONE), f32::new(0.5)));
                if count > 0 {
                    let head = all_heads + pack.first_head + packed % slots;
                    let line = head * 2 + packed / slots / comptime!(PROBES as u32 / 2);
                    slashes[(line * buckets + own - granule) as usize].fetch_add(count);
                }
            }
        }
        task += comptime!(tile.units());
    }
}

/// Adds up a group's columns over units, and writes their means.
#[cube]
#[allow(clippy::too_many_arguments)]
fn write_columns(
    column: &Array<f32>,
    exchange: &mut Shared<[f32]>,
    columns: &mut [f32],
    pack: &Pack,
    group: u32,
    all_heads: u32,
    keys_all: u32,
    #[comptime] bp: ProbeBlueprint,
) {
    let tile = comptime!(bp.tile);
    let pitch = comptime!(bp.column_pitch());
    let unit_row = UNIT_POS_Y as usize % comptime!(tile.row_planes) * 8 + UNIT_POS_X as usize / 4;
    let to = unit_row * pitch + product::first_key(tile);
    #[unroll]
    for j in 0..comptime!(tile.key_tiles) {
        #[unroll]
        for c in 0..2usize {
            exchange[to + comptime!(j * 8 + c)] = column[comptime!(j * 2 + c)];
        }
    }
    sync_cube();
    let valid = valid_probes(group, pack.span.query_len);
    let mut task = UNIT_POS as usize;
    while task < pack.heads as usize * BLOCK {
        let (slot, offset) = (task / BLOCK, task % BLOCK);
        let position = pack.first + offset as u32;
        if position < keys_all {
            let mut sum = f32::new(0.0);
            #[unroll]
            for i in 0..comptime!(tile.row_planes * 8 / bp.slots) {
                sum += exchange[(slot + comptime!(i * bp.slots)) * pitch + offset];
            }
            let mut mean = f32::new(0.0);
            if valid > 0 {
                mean = sum / f32::cast_from(valid);
            }
            let row = (all_heads + pack.first_head + slot as u32) * 2 + group;
            columns[row as usize * keys_all as usize + position as usize] = mean;
        }
        task += comptime!(tile.units());
    }
    sync_cube();
}
