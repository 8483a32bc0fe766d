//! Bytes back to elements: what prefill reads, one layer at a time.
//!
//! One unit takes 8 bytes of a row. Rows at and after a sequence's length are left alone.

use cubecl::{
    client::Client,
    ir::{AddressType, ElemType},
    prelude::*,
};

use super::{CachePart, PER_WORD, unpack};
use crate::{layout, table::Span};

/// Elements of a unit.
const WIDTH: usize = 8;

#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn dequantize_rows<E: Float, N: Size, M: Size>(
    words: &Tensor<Vector<u32, M>>,
    scales: &Tensor<f32>,
    table: &[u32],
    out: &mut Tensor<Vector<E, N>>,
    total: usize,
    heads: usize,
    rows: usize,
    #[comptime] vectors: usize,
    #[comptime] width: usize,
    #[comptime] part: usize,
    #[define(E)] _elem: ElemType,
) {
    if ABSOLUTE_POS < total {
        let vector = ABSOLUTE_POS % vectors;
        let row = ABSOLUTE_POS / vectors % rows;
        let head = ABSOLUTE_POS / (vectors * rows) % heads;
        let b = ABSOLUTE_POS / (vectors * rows * heads);
        if row < Span::of(table, b as u32).kv_len as usize {
            let from = b * words.stride(0) + head * words.stride(1) + row * words.stride(2);
            let to = b * out.stride(0) + head * out.stride(1) + row * out.stride(2);
            let scale = scales
                [b * scales.stride(0) + head * scales.stride(1) + part * scales.stride(2) + row];
            let loaded = words[from / comptime!(width / PER_WORD) + vector];
            let wide = unpack::<M, N>(loaded, width) * Vector::new(scale);
            out[to / width + vector] = Vector::cast_from(wide);
        }
    }
}

/// The buffers of a call; the last dimension of every tensor is contiguous, other strides of `words` are
/// multiples of 2 and of `out` multiples of 8.
#[allow(missing_debug_implementations)] // launch arguments have none
pub struct Tensors {
    /// `[B, Hk, S, d / 4]`.
    pub words: TensorArg,
    /// `[B, Hk, 2, S]`.
    pub scales: TensorArg,
    /// Begins with the spans `[B, 4]`.
    pub table: BufferArg,
    /// Written below each sequence's length: `[B, Hk, S, d]`.
    pub out: TensorArg,
    /// Index width.
    pub address: AddressType,
}

/// Launches it. `shape` is batch, KV heads, rows of the longest sequence, head dimension (a multiple of 8).
#[allow(unsafe_code)]
pub fn launch(
    client: &Client,
    shape: [usize; 4],
    part: CachePart,
    elem: ElemType,
    tensors: Tensors,
) {
    let [batch, heads, rows, head_dim] = shape;
    let width = layout::width(client.properties(), elem, &[head_dim, WIDTH]).max(PER_WORD);
    let vectors = head_dim / width;
    let total = batch * heads * rows * vectors;
    let (count, dim) = layout::alone(client, total);
    // SAFETY: a unit below `total` reads and writes below its sequence's length, which the caller
    // promises to lie in every tensor.
    unsafe {
        dequantize_rows::launch_unchecked(
            client,
            count,
            dim,
            tensors.address,
            width,
            width / PER_WORD,
            tensors.words,
            tensors.scales,
            tensors.table,
            tensors.out,
            total,
            heads,
            rows,
            vectors,
            width,
            part.index(),
            elem,
        );
    }
}
