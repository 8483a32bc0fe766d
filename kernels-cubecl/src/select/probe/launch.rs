//! Launches the passes of the probe.

use cubecl::{
    client::Client,
    ir::{AddressType, ElemType, FloatKind},
    prelude::*,
    server::Handle,
};
use sparse_accelerate_contract::SPAN_WORDS;

use super::{MERGED, Plan, merge, parts::probe_parts, shares::probe_shares};
use crate::{
    attend::plan::fold,
    layout,
    select::{PROBES, RULE_WORDS, Shape, View},
};

/// The buffers of a probe. Query and key have a contiguous last dimension and strides that are multiples
/// of 8. No kernel reads or writes more than seven buffers.
#[allow(missing_debug_implementations)] // CubeCL's arguments have none
pub struct Tensors {
    /// `[B, Hq, N, d]`.
    pub query: View,
    /// `[B, Hk, S, d]`, `S >= L'`.
    pub key: View,
    /// Begins with the spans `[B, 4]`, `u32`; every span has a row and no more keys than `L'`.
    pub table: Handle,
    /// `[Hi, 8]`, `u32`.
    pub rules: Handle,
    /// Written: `[B, Hq, 128]`, f32.
    pub lse: Handle,
    /// Written: `[B, Hq, 2, L']`, f32.
    pub columns: Handle,
    /// Written: `[B, Hq, 2, SB]`, `u32`.
    pub slashes: Handle,
    /// Index width that reaches every element of the largest buffer.
    pub address: AddressType,
}

/// Runs a plan made by [`super::prepare`] for the same selection.
#[allow(unsafe_code)]
pub fn launch(client: &Client, shape: &Shape, plan: &Plan, elem: ElemType, tensors: Tensors) {
    let bp = plan.blueprint;
    let tile = bp.tile;
    let window = shape.window();
    let key_tiles = shape.key_blocks();
    let heads_per_kv = shape.heads_per_kv() as u32;
    let packs = shape.batch * shape.kv_heads * plan.packs;
    let cubes = (packs * key_tiles) as u32;
    let count = CubeCount::Static(plan.grid.0, plan.grid.1, 1);
    let dim = CubeDim::new_2d(32, (tile.units() / 32) as u32);
    let staged = match tile.mma {
        true => elem,
        false => ElemType::Float(FloatKind::F32),
    };
    let scratch = client.empty(plan.scratch * size_of::<f32>());
    // SAFETY: the lengths are those of the buffers, by `prepare` or by the caller's promise.
    let buffer = |handle: &Handle, len| unsafe { BufferArg::from_raw_parts(handle.clone(), len) };
    let table = || buffer(&tensors.table, shape.batch * SPAN_WORDS);
    let lse_len = shape.batch * shape.heads * PROBES;
    let slashes_len = shape.batch * shape.heads * 2 * shape.slash_buckets();
    let (clear_count, clear_dim) = layout::alone(client, slashes_len);
    let merges = packs * PROBES * bp.slots / MERGED;
    let (x, y) = fold(merges, client.properties()).unwrap_or((merges as u32, 1));
    // SAFETY: cubes past the last stop at once; the others read keys below each sequence's length, which
    // the caller checked against the shapes, and parts of scratch that the pass before wrote.
    unsafe {
        merge::clear::launch_unchecked(
            client,
            clear_count,
            clear_dim,
            tensors.address,
            buffer(&tensors.slashes, slashes_len),
            slashes_len,
        );
        probe_parts::launch_unchecked(
            client,
            count.clone(),
            dim,
            tensors.address,
            tile.width(),
            tensors.query.arg(),
            tensors.key.arg(),
            table(),
            buffer(&scratch, plan.scratch),
            cubes,
            key_tiles as u32,
            shape.kv_heads as u32,
            plan.packs as u32,
            heads_per_kv,
            shape.scale,
            window.into(),
            bp,
            elem,
            staged,
        );
        merge::merge_parts::launch_unchecked(
            client,
            CubeCount::Static(x, y, 1),
            CubeDim::new_1d((MERGED * MERGED) as u32),
            tensors.address,
            buffer(&scratch, plan.scratch),
            table(),
            buffer(&tensors.lse, lse_len),
            cubes,
            key_tiles as u32,
            shape.kv_heads as u32,
            plan.packs as u32,
            heads_per_kv,
            window.into(),
            bp,
        );
        probe_shares::launch_unchecked(
            client,
            count,
            dim,
            tensors.address,
            tile.width(),
            tensors.query.arg(),
            tensors.key.arg(),
            table(),
            buffer(&tensors.rules, shape.index_heads * RULE_WORDS),
            buffer(&tensors.lse, lse_len),
            buffer(&tensors.columns, shape.batch * shape.heads * 2 * shape.keys),
            buffer(&tensors.slashes, slashes_len),
            cubes,
            key_tiles as u32,
            shape.kv_heads as u32,
            plan.packs as u32,
            heads_per_kv,
            shape.heads_per_index() as u32,
            shape.keys as u32,
            shape.slash_buckets() as u32,
            shape.scale,
            window.into(),
            bp,
            elem,
            staged,
        );
    }
}
