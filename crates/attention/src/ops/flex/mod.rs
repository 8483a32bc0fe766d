//! The extension on the CPU: blocked attention over the same index, on all threads.
//!
//! One work item is one query tile of one head group (as in the kernels: the query heads of a KV
//! group share every key). It walks its keys in blocks of up to [`blocks::KEY_BLOCK`]: scores and
//! output by matrix products, softmax by rows with a running maximum. Work is proportional to the
//! kept tiles. All arithmetic in f32; f16, bf16 and int8 are widened block by block.

mod append;
mod blocks;
mod int8;
mod rope;
mod select;
mod tile;

use burn::{
    backend::Flex,
    tensor::{DType, Shape, bf16, f16},
};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::{AttendOptions, SparseAttentionOps};
use sparse_accelerate_cpu::{FlexFloat, Rows};

use crate::index::QUERY_TILE;
use tile::{Problem, Scratch};

impl SparseAttentionOps for Flex {
    fn attend(
        query: FlexTensor,
        key: FlexTensor,
        value: FlexTensor,
        table: FlexTensor,
        options: AttendOptions,
    ) -> FlexTensor {
        attend(query, key, value, table, options).0
    }

    fn attend_with_lse(
        query: FlexTensor,
        key: FlexTensor,
        value: FlexTensor,
        table: FlexTensor,
        options: AttendOptions,
    ) -> (FlexTensor, FlexTensor) {
        attend(query, key, value, table, options)
    }

    fn append_kv(cache: FlexTensor, new: FlexTensor, table: FlexTensor) -> FlexTensor {
        match cache.dtype() {
            DType::F32 => append::append::<f32>(cache, new, table),
            DType::F16 => append::append::<f16>(cache, new, table),
            DType::BF16 => append::append::<bf16>(cache, new, table),
            // The public function checks the type; only a direct call of the extension gets here.
            other => panic!("append: element type {other:?} is not supported"),
        }
    }

    fn rope_append(
        qkv: FlexTensor,
        rotation: FlexTensor,
        key: FlexTensor,
        value: FlexTensor,
        table: FlexTensor,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        match qkv.dtype() {
            DType::F32 => rope::rope_append::<f32>(qkv, rotation, key, value, table),
            DType::F16 => rope::rope_append::<f16>(qkv, rotation, key, value, table),
            DType::BF16 => rope::rope_append::<bf16>(qkv, rotation, key, value, table),
            other => panic!("rope: element type {other:?} is not supported"),
        }
    }
}

fn attend(
    query: FlexTensor,
    key: FlexTensor,
    value: FlexTensor,
    table: FlexTensor,
    options: AttendOptions,
) -> (FlexTensor, FlexTensor) {
    match query.dtype() {
        DType::F32 => attend_typed::<f32>(query, key, value, None, table, options),
        DType::F16 => attend_typed::<f16>(query, key, value, None, table, options),
        DType::BF16 => attend_typed::<bf16>(query, key, value, None, table, options),
        other => panic!("attend: element type {other:?} is not supported"),
    }
}

/// Keys and values are int8 where there are scales.
fn attend_typed<E: FlexFloat>(
    query: FlexTensor,
    key: FlexTensor,
    value: FlexTensor,
    scales: Option<FlexTensor>,
    table: FlexTensor,
    options: AttendOptions,
) -> (FlexTensor, FlexTensor) {
    let (key, value) = (rows_contiguous(key), rows_contiguous(value));
    let operands = [&query, &key, &value];
    let problem = Problem::<E>::new(operands, scales.as_ref(), table.storage(), options);
    let [batch, heads, rows, head_dim] = problem.dims;

    // Written as [B, N, Hq, d], returned as [B, Hq, N, d]: the model's next reshape copies nothing.
    let mut out = FlexTensor::empty(Shape::new([batch, rows, heads, head_dim]), E::dtype());
    let mut lse = FlexTensor::empty(Shape::new([batch, heads, rows]), DType::F32);
    run_items(&problem, &mut out, &mut lse, |_, _| true);
    (out.transpose(1, 2), lse)
}

/// One pass over the heads whose gate `[B * gates]` is `served`, written to their rows of `out`
/// `[B, N, Hq, d]` and `lse`; the others are left as they are.
fn attend_gated<E: FlexFloat>(
    operands: [&FlexTensor; 3],
    table: &[u32],
    options: AttendOptions,
    (gates, served): &(Vec<u32>, u32),
    out: &mut FlexTensor,
    lse: &mut FlexTensor,
) {
    let mut problem = Problem::<E>::new(operands, None, table, options);
    let [batch, heads, ..] = problem.dims;
    let gated = gates.len() / batch;
    if gated == heads {
        problem.pack = 1;
    }
    let group_heads = problem.pack;
    run_items(&problem, out, lse, |b, group| {
        gates[b * gated + group * group_heads * gated / heads] == *served
    });
}

/// Every query tile of every head group that is wanted.
fn run_items<E: FlexFloat>(
    problem: &Problem<'_, E>,
    out: &mut FlexTensor,
    lse: &mut FlexTensor,
    wanted: impl Fn(usize, usize) -> bool + Sync,
) {
    let [batch, heads, rows, _] = problem.dims;
    let (out_rows, lse_rows) = (
        Rows::new(out.storage_mut::<E>()),
        Rows::new(lse.storage_mut::<f32>()),
    );
    let tiles = rows.div_ceil(QUERY_TILE);
    let groups = heads / problem.pack;
    (0..batch * groups * tiles)
        .into_par_iter()
        .with_max_len(1)
        .for_each_init(Scratch::default, |scratch, item| {
            // The last tiles see most, so they come first.
            let tile = tiles - 1 - item / (batch * groups);
            let (b, group) = (item / groups % batch, item % groups);
            if wanted(b, group) {
                problem.run(scratch, (b, group, tile), &out_rows, &lse_rows);
            }
        });
}

/// Rows of keys and values are read as slices: their last dimension must be contiguous.
fn rows_contiguous(tensor: FlexTensor) -> FlexTensor {
    match tensor.layout().strides().last() == Some(&1) && tensor.layout().has_positive_strides() {
        true => tensor,
        false => tensor.to_contiguous(),
    }
}
