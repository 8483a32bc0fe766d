//! The sampled rows of a chunk, over every block of [`MEAN_BLOCK`] keys: one pass over the keys.
//!
//! `parts[b, h, r, J] = log2 sum_{j in J, seen} 2^(log2(e) scale q_r . k_j)` of row `r`, and less than any score
//! where it sees no key of the block; [`WILD`] where a score is not finite. A cube takes a tile of 128 keys, as the probes do, which is two blocks.

// A comptime condition is an `if` of its own: it decides what is compiled.
#![allow(clippy::collapsible_if)]

use cubecl::{
    client::Client,
    ir::{AddressType, ElemType, FloatKind},
    prelude::*,
    server::Handle,
};
use sparse_accelerate_contract::{
    SPAN_WORDS,
    group::{GroupWords, MEAN_BLOCK},
};

use super::{Plan, ProbeBlueprint, kernel, rows};
use crate::{
    attend::mma::exp2,
    select::{
        Shape, View,
        fixed::INFINITY,
        pack::NOWHERE,
        product::{self, NOTHING},
    },
    table::Window,
};

/// Stands for the sum of scores that are not finite; no sum of finite ones is as large.
pub(in crate::select) const WILD: f32 = 3.0e38;
/// Blocks of a tile of keys.
const BLOCKS: usize = super::BLOCK / MEAN_BLOCK;

/// Writes `parts` `[B, Hq, samples, blocks]` for every block of which a sampled row sees a key or whose
/// neighbour it sees; others are left.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn sample_blocks<E: Float, F: Float, N: Size>(
    query: &Tensor<Vector<E, N>>,
    key: &Tensor<Vector<E, N>>,
    table: &[u32],
    parts: &mut [f32],
    cubes: u32,
    key_tiles: u32,
    kv_heads: u32,
    packs: u32,
    heads_per_kv: u32,
    blocks: u32,
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
    if pack.first >= pack.span.kv_len || pack.span.query_len == 0 {
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
    // Units of a row that share a block stand side by side.
    let each = comptime!(sharers / BLOCKS);
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
                    let mut wild = false.runtime();
                    #[unroll]
                    for j in 0..comptime!(tile.key_tiles) {
                        let a = sums.index(comptime!(m * tile.key_tiles + j))[h];
                        maximum = max(maximum, max(a.extract(0usize), a.extract(1usize)));
                        wild =
                            wild || not_finite(a.extract(0usize)) || not_finite(a.extract(1usize));
                    }
                    let shift = f32::new(0.0) - maximum * factor;
                    let mut sum = f32::new(0.0);
                    #[unroll]
                    for j in 0..comptime!(tile.key_tiles) {
                        let a = sums.index(comptime!(m * tile.key_tiles + j))[h];
                        sum += product::weight(a.extract(0usize), factor, shift, bp.inline)
                            + product::weight(a.extract(1usize), factor, shift, bp.inline);
                    }
                    exchange[sharer * row_pitch + local] =
                        select(wild, f32::new(WILD), maximum * factor);
                    exchange[(sharers + sharer) * row_pitch + local] =
                        select(wild, f32::new(1.0), sum);
                }
            }
            sync_cube();
            let mut task = UNIT_POS as usize;
            while task < comptime!(BLOCKS * tile.rows()) {
                let (block, local) = (task / comptime!(tile.rows()), task % comptime!(tile.rows()));
                let mut maximum = f32::new(NOTHING) * factor;
                #[unroll]
                for i in 0..each {
                    maximum = max(maximum, exchange[(block * each + i) * row_pitch + local]);
                }
                let mut sum = f32::new(0.0);
                #[unroll]
                for i in 0..each {
                    let from = block * each + i;
                    let weight = exp2(
                        exchange[from * row_pitch + local] - maximum,
                        comptime!(bp.inline),
                    );
                    sum += weight * exchange[(sharers + from) * row_pitch + local];
                }
                let mut part = f32::new(NOTHING);
                if sum != 0.0 {
                    part = maximum + sum.ln() * f32::new(core::f32::consts::LOG2_E);
                }
                let packed = row_tile * comptime!(tile.rows() as u32) + local as u32;
                let at = pack.first / comptime!(MEAN_BLOCK as u32) + block as u32;
                if rows::row(&pack, packed, bp) != NOWHERE.runtime() && at < blocks {
                    let slots = comptime!(bp.slots as u32);
                    let head = pack.b * kv_heads * heads_per_kv + pack.first_head + packed % slots;
                    let row = head * comptime!(bp.samples as u32) + packed / slots;
                    parts[row as usize * blocks as usize + at as usize] = part;
                }
                task += comptime!(tile.units());
            }
        }
    }
}

/// Tells by its bits whether a number is an infinity or none: compilers may suppose that there are no such.
#[cube]
fn not_finite(x: f32) -> bool {
    u32::reinterpret(x) & 0x7fff_ffff >= INFINITY
}

/// The buffers of a pass over the sampled rows. Query and key have a contiguous last dimension and strides that
/// are multiples of 8.
#[allow(missing_debug_implementations)] // CubeCL's arguments have none
pub(in crate::select) struct Sampled<'a> {
    /// `[B, Hq, N, d]`.
    pub(in crate::select) query: &'a View,
    /// `[B, Hk, S, d]`.
    pub(in crate::select) key: &'a View,
    /// Spans `[B, 4]` of the rows that are sampled.
    pub(in crate::select) probes: &'a Handle,
    /// Written: `[B, Hq, samples, blocks]`.
    pub(in crate::select) parts: &'a Handle,
    /// Index width that reaches every element of the largest buffer.
    pub(in crate::select) address: AddressType,
}

/// Runs a plan made by [`super::sample`].
#[allow(unsafe_code)]
pub(in crate::select) fn launch(
    client: &Client,
    shape: &Shape,
    plan: &Plan,
    elem: ElemType,
    tensors: &Sampled<'_>,
) {
    let bp = plan.blueprint;
    let key_tiles = shape.key_blocks();
    let packs = shape.batch * shape.kv_heads * plan.packs;
    let staged = match bp.tile.mma {
        true => elem,
        false => ElemType::Float(FloatKind::F32),
    };
    // SAFETY: the lengths are those of the buffers, by `prepare` or by the caller's promise.
    let buffer = |handle: &Handle, len| unsafe { BufferArg::from_raw_parts(handle.clone(), len) };
    // SAFETY: cubes past the last stop at once; the others read keys below each sequence's length, which
    // the caller checked against the shapes.
    unsafe {
        sample_blocks::launch_unchecked(
            client,
            CubeCount::Static(plan.grid.0, plan.grid.1, 1),
            CubeDim::new_2d(32, (bp.tile.units() / 32) as u32),
            tensors.address,
            bp.tile.width(),
            tensors.query.arg(),
            tensors.key.arg(),
            buffer(tensors.probes, shape.batch * SPAN_WORDS),
            buffer(tensors.parts, GroupWords::new(shape).parts),
            (packs * key_tiles) as u32,
            key_tiles as u32,
            shape.kv_heads as u32,
            plan.packs as u32,
            shape.heads_per_kv() as u32,
            sparse_accelerate_contract::group::blocks(shape) as u32,
            shape.scale,
            shape.window().into(),
            bp,
            elem,
            staged,
        );
    }
}
