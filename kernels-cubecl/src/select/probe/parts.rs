//! First pass: maximum and sum of exponentials of every probe row over one tile of keys.

// A comptime condition is an `if` of its own: it decides what is compiled.
#![allow(clippy::collapsible_if)]

use cubecl::prelude::*;

use super::{ProbeBlueprint, kernel, rows};
use crate::{
    attend::mma::exp2,
    select::{
        pack::NOWHERE,
        product::{self, NOTHING},
    },
    table::Window,
};

/// Writes, per cube (pack and tile of keys) and packed row: the maximum of its scores, as exponents of 2,
/// to the first half of `parts`, and the sum of 2 to the power of score minus maximum to the second half.
/// Rows that see no key of the tile are left as they are.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(super) fn probe_parts<E: Float, F: Float, N: Size>(
    query: &Tensor<Vector<E, N>>,
    key: &Tensor<Vector<E, N>>,
    table: &[u32],
    parts: &mut [f32],
    cubes: u32,
    key_tiles: u32,
    kv_heads: u32,
    packs: u32,
    heads_per_kv: u32,
    scale: f32,
    window: ComptimeOption<u32>,
    #[comptime] bp: ProbeBlueprint,
    #[define(E)] _elem: ElemType,
    #[define(F)] _staged: ElemType,
) {
    let tile = comptime!(bp.tile);
    let cube = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
    if cube >= cubes {
        terminate!();
    }
    let pack = rows::pack(table, cube, key_tiles, kv_heads, packs, heads_per_kv, bp);
    if pack.first >= pack.span.kv_len {
        terminate!();
    }
    let window = Window::of(&window);
    if comptime!(window.some) {
        if rows::hidden(&pack, &window, bp) {
            terminate!();
        }
    }
    let mut rows =
        Shared::<[Vector<F, N>]>::new_aligned_slice(comptime!(tile.rows() * tile.pitch()), 16usize);
    let mut keys =
        Shared::<[Vector<F, N>]>::new_aligned_slice(comptime!(tile.keys() * tile.pitch()), 16usize);
    let mut exchange = Shared::<[f32]>::new_slice(comptime!(bp.exchange()));
    if comptime!(tile.chunks() == 1) {
        kernel::stage_keys(key, &mut keys, &pack, 0usize, bp);
    }
    let factor = scale * f32::new(core::f32::consts::LOG2_E);
    let row_pitch = comptime!(bp.row_pitch());
    let sharers = comptime!(tile.key_planes * 4);
    let first_row = product::first_row(tile);
    let sharer = UNIT_POS_Y as usize / comptime!(tile.row_planes) * 4 + UNIT_POS_X as usize % 4;
    for row_tile in 0..comptime!(bp.row_tiles() as u32) {
        if rows::sees(&pack, row_tile, &window, bp) {
            let mut sums = kernel::scores(query, key, &mut rows, &mut keys, &pack, row_tile, bp);
            #[unroll]
            for m in 0..comptime!(tile.row_tiles) {
                #[unroll]
                for h in 0..2usize {
                    let local = first_row + comptime!(m * 16 + h * 8);
                    let packed = row_tile * comptime!(tile.rows() as u32) + local as u32;
                    let row = rows::row(&pack, packed, bp);
                    let mut high = 0u32;
                    if row != NOWHERE.runtime() {
                        let end = pack.span.offset() + row + 1;
                        high = max(end, pack.first) - pack.first;
                    }
                    let low = rows::low(&pack, pack.span.offset() + row, &window);
                    kernel::mask_row(&mut sums, low, high, m, h, bp);
                    let mut maximum = f32::new(NOTHING);
                    #[unroll]
                    for j in 0..comptime!(tile.key_tiles) {
                        let a = sums.index(comptime!(m * tile.key_tiles + j))[h];
                        maximum = max(maximum, max(a.extract(0usize), a.extract(1usize)));
                    }
                    let shift = f32::new(0.0) - maximum * factor;
                    let mut sum = f32::new(0.0);
                    #[unroll]
                    for j in 0..comptime!(tile.key_tiles) {
                        let a = sums.index(comptime!(m * tile.key_tiles + j))[h];
                        sum += product::weight(a.extract(0usize), factor, shift, bp.inline)
                            + product::weight(a.extract(1usize), factor, shift, bp.inline);
                    }
                    exchange[sharer * row_pitch + local] = maximum * factor;
                    exchange[(sharers + sharer) * row_pitch + local] = sum;
                }
            }
            sync_cube();
            let mut local = UNIT_POS as usize;
            while local < comptime!(tile.rows()) {
                let mut maximum = f32::new(NOTHING) * factor;
                #[unroll]
                for i in 0..sharers {
                    maximum = max(maximum, exchange[i * row_pitch + local]);
                }
                let mut sum = f32::new(0.0);
                #[unroll]
                for i in 0..sharers {
                    let weight = exp2(
                        exchange[i * row_pitch + local] - maximum,
                        comptime!(bp.inline),
                    );
                    sum += weight * exchange[(sharers + i) * row_pitch + local];
                }
                let at = (cube * comptime!(bp.row_tiles() as u32) + row_tile) as usize
                    * comptime!(tile.rows())
                    + local;
                let half = cubes as usize * comptime!(bp.row_tiles() * tile.rows());
                parts[at] = maximum;
                parts[half + at] = sum;
                local += comptime!(tile.units());
            }
        }
    }
}
