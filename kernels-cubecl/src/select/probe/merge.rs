//! Between the passes: the log-sum-exp of every probe row, and no slashes yet.

// A comptime condition is an `if` of its own: it decides what is compiled.
#![allow(clippy::collapsible_if)]

use cubecl::prelude::*;

use super::{MERGED, ProbeBlueprint, rows};
use crate::{
    attend::mma::exp2,
    select::{PROBES, pack::NOWHERE, product::NOTHING},
    table::Window,
};

/// One cube merges 16 packed rows of a pack over the tiles of keys that they see, 16 tiles at a time.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(super) fn merge_parts(
    parts: &[f32],
    table: &[u32],
    lse: &mut [f32],
    cubes: u32,
    key_tiles: u32,
    kv_heads: u32,
    packs: u32,
    heads_per_kv: u32,
    window: ComptimeOption<u32>,
    #[comptime] bp: ProbeBlueprint,
) {
    let window = Window::of(&window);
    let segments = comptime!((PROBES * bp.slots / MERGED) as u32);
    let cube = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
    let first_part = cube / segments * key_tiles;
    if first_part >= cubes {
        terminate!();
    }
    let pack = rows::pack(
        table,
        first_part,
        key_tiles,
        kv_heads,
        packs,
        heads_per_kv,
        bp,
    );
    let lane = UNIT_POS as usize % MERGED;
    let share = UNIT_POS as usize / MERGED;
    let packed = cube % segments * comptime!(MERGED as u32) + lane as u32;
    let row = rows::row(&pack, packed, bp);
    let mut tiles = 0u32;
    if row != NOWHERE.runtime() {
        tiles = (pack.span.offset() + row) / comptime!(bp.tile.keys() as u32) + 1;
    }
    let length = comptime!(PROBES * bp.slots);
    let half = cubes as usize * length;
    let mut maximum = f32::new(NOTHING);
    let mut sum = f32::new(0.0);
    let mut tile = share as u32;
    if comptime!(window.some) {
        if tiles > 0 {
            let first = window.first_key(pack.span.offset() + row);
            tile += first / comptime!(bp.tile.keys() as u32);
        }
    }
    while tile < tiles {
        let at = (first_part + tile) as usize * length + packed as usize;
        let highest = max(maximum, parts[at]);
        sum = sum * exp2(maximum - highest, comptime!(bp.inline))
            + parts[half + at] * exp2(parts[at] - highest, comptime!(bp.inline));
        maximum = highest;
        tile += comptime!(MERGED as u32);
    }
    let mut maxima = Shared::<[f32]>::new_slice(comptime!(MERGED * MERGED));
    let mut sums = Shared::<[f32]>::new_slice(comptime!(MERGED * MERGED));
    maxima[UNIT_POS as usize] = maximum;
    sums[UNIT_POS as usize] = sum;
    sync_cube();
    let slot = packed % comptime!(bp.slots as u32);
    if share == 0 && slot < pack.heads {
        let mut value = f32::new(0.0);
        if tiles > 0 {
            maximum = f32::new(NOTHING);
            #[unroll]
            for i in 0..MERGED {
                maximum = max(maximum, maxima[i * MERGED + lane]);
            }
            sum = f32::new(0.0);
            #[unroll]
            for i in 0..MERGED {
                let weight = exp2(maxima[i * MERGED + lane] - maximum, comptime!(bp.inline));
                sum += weight * sums[i * MERGED + lane];
            }
            value = maximum * f32::new(core::f32::consts::LN_2) + sum.ln();
        }
        let head = pack.b * kv_heads * heads_per_kv + pack.first_head + slot;
        let probe = packed / comptime!(bp.slots as u32);
        lse[(head * comptime!(PROBES as u32) + probe) as usize] = value;
    }
}

/// Clears a buffer.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(super) fn clear(words: &mut [u32], len: usize) {
    if ABSOLUTE_POS < len {
        words[ABSOLUTE_POS] = 0u32;
    }
}
