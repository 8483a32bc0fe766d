//! Launches the scores.

use cubecl::{
    client::Client,
    ir::{AddressType, ElemType, FloatKind},
    prelude::*,
};

use super::{Plan, kernel::score_blocks};
use crate::{
    layout::buffer,
    select::{Shape, correct},
};

/// The buffers of the scores: six of them. The query has a contiguous last dimension and strides that
/// are multiples of 8; all else is contiguous.
#[allow(missing_debug_implementations)] // CubeCL's arguments have none
pub struct Tensors {
    /// `[B, Hq, N, d]`.
    pub query: TensorArg,
    /// `[B, Hk, Cc, 3, d]`, f32: per key block mean key, variance of the keys, mean value.
    pub pooled: BufferArg,
    /// `Cc`: pooled key blocks per sequence and KV head.
    pub capacity: usize,
    /// Begins with the spans `[B, 4]`, `u32`.
    pub table: BufferArg,
    /// `[Hi, 8]`, `u32`.
    pub rules: BufferArg,
    /// `[V, d]`, f32.
    pub weights: BufferArg,
    /// Written: `[B, Hq, T, C]`, f32.
    pub scores: BufferArg,
    /// Index width that reaches every element of the largest buffer.
    pub address: AddressType,
}

/// Runs a plan made by [`super::prepare`] for the same selection.
#[allow(unsafe_code)]
pub fn launch(client: &Client, shape: &Shape, plan: &Plan, elem: ElemType, tensors: Tensors) {
    let tile = plan.blueprint.tile;
    let staged = match tile.mma {
        true => elem,
        false => ElemType::Float(FloatKind::F32),
    };
    let pooled = match tile.mma {
        // Every cube reads all blocks before it: half the bytes.
        true => {
            let blocks = shape.batch * shape.kv_heads * tensors.capacity;
            let total = blocks * 3 * shape.head_dim;
            let narrow = correct::narrowed(client, total, elem, tensors.pooled);
            buffer(&narrow, total)
        }
        false => tensors.pooled,
    };
    let cubes = shape.batch * shape.kv_heads * plan.packs * plan.parts;
    // SAFETY: cubes past the last stop at once; the others read rows below each sequence's length and
    // key blocks wholly before them, and write inside their own heads and query blocks.
    unsafe {
        score_blocks::launch_unchecked(
            client,
            CubeCount::Static(plan.grid.0, plan.grid.1, 1),
            CubeDim::new_2d(32, (tile.units() / 32) as u32),
            tensors.address,
            tile.width(),
            tensors.query,
            pooled,
            tensors.table,
            tensors.rules,
            tensors.weights,
            tensors.scores,
            cubes as u32,
            plan.parts as u32,
            shape.kv_heads as u32,
            plan.packs as u32,
            shape.heads_per_kv() as u32,
            shape.heads_per_index() as u32,
            shape.query_blocks() as u32,
            shape.key_blocks() as u32,
            tensors.capacity as u32,
            shape.scale,
            shape.window().into(),
            plan.blueprint,
            elem,
            staged,
        );
    }
}
