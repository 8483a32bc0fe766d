//! From the product of queries, keys and values to attention's operands, in one pass: queries and keys
//! are rotated, keys and values go where they stay, into their caches.
//!
//!   y[..h] = x[..h] cos - x[h..] sin
//!   y[h..] = x[h..] cos + x[..h] sin      h = d / 2
//!
//! with cosine and sine of the row's position, `kv_len - query_len + i`. In f32, rounded once; values
//! are moved bit for bit. Padded rows become zeros among the queries and are not written to the caches.
//! One unit takes one vector of a head's first half and its partner of the second.

use cubecl::{
    client::Client,
    ir::{AddressType, ElemType},
    prelude::*,
};

use crate::layout;

/// What a kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Blueprint {
    heads: usize,
    kv_heads: usize,
    /// Vectors of half a head.
    half: usize,
    /// Elements of a vector.
    width: usize,
}

impl Blueprint {
    /// Heads of query, key and value together.
    fn all(&self) -> usize {
        self.heads + 2 * self.kv_heads
    }
}

#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn rope_append_rows<E: Float, N: Size>(
    qkv: &Tensor<Vector<E, N>>,
    rotation: &Tensor<Vector<f32, N>>,
    table: &[u32],
    query: &mut [Vector<E, N>],
    key: &mut Tensor<Vector<E, N>>,
    value: &mut Tensor<Vector<E, N>>,
    total: usize,
    rows: usize,
    #[comptime] bp: Blueprint,
    #[define(E)] _elem: ElemType,
) {
    if ABSOLUTE_POS < total {
        let half = comptime!(bp.half);
        let width = comptime!(bp.width);
        let heads = comptime!(bp.heads);
        let turned = comptime!(bp.heads + bp.kv_heads);
        let vector = ABSOLUTE_POS % half;
        let head = ABSOLUTE_POS / half % comptime!(bp.all());
        let row = ABSOLUTE_POS / comptime!(bp.half * bp.all());
        let b = row / rows;
        let i = row % rows;
        let q_len = table[b * 4] as usize;
        let kv_len = table[b * 4 + 1] as usize;
        let to_query = (row * heads + head) * comptime!(2 * bp.half) + vector;
        if i < q_len {
            let position = kv_len - q_len + i;
            let from = row * (qkv.stride(0) / width) + head * comptime!(2 * bp.half) + vector;
            let first = qkv[from];
            let second = qkv[from + half];
            if head < turned {
                let at = position * (rotation.stride(0) / width) + vector;
                let cos = rotation[at];
                let sin = rotation[at + half];
                let first = Vector::<f32, N>::cast_from(first);
                let second = Vector::<f32, N>::cast_from(second);
                let turned_first = Vector::<E, N>::cast_from(first * cos - second * sin);
                let turned_second = Vector::<E, N>::cast_from(second * cos + first * sin);
                if head < heads {
                    query[to_query] = turned_first;
                    query[to_query + half] = turned_second;
                } else {
                    let to = b * (key.stride(0) / width)
                        + (head - heads) * (key.stride(1) / width)
                        + position * (key.stride(2) / width)
                        + vector;
                    key[to] = turned_first;
                    key[to + half] = turned_second;
                }
            } else {
                let to = b * (value.stride(0) / width)
                    + (head - turned) * (value.stride(1) / width)
                    + position * (value.stride(2) / width)
                    + vector;
                value[to] = first;
                value[to + half] = second;
            }
        } else if head < heads {
            query[to_query] = Vector::new(E::new(0.0));
            query[to_query + half] = Vector::new(E::new(0.0));
        }
    }
}

/// The shapes of a call, in elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Sequences.
    pub batch: usize,
    /// Rows of each, padding included.
    pub rows: usize,
    /// Query heads.
    pub heads: usize,
    /// KV heads.
    pub kv_heads: usize,
    /// Elements of a head; even.
    pub head_dim: usize,
}

/// The buffers of a call; the last dimension of every tensor is contiguous.
#[allow(missing_debug_implementations)] // launch arguments have none
pub struct Tensors {
    /// `[B * N, (Hq + 2 Hk) * d]`.
    pub qkv: TensorArg,
    /// `[positions, d]` in f32: cosines, then sines.
    pub rotation: TensorArg,
    /// Begins with the spans `[B, 4]`.
    pub table: BufferArg,
    /// Written: `[B, N, Hq, d]`, contiguous.
    pub query: BufferArg,
    /// Written at each sequence's new positions: `[B, Hk, S, d]`.
    pub key: TensorArg,
    /// As `key`.
    pub value: TensorArg,
    /// Elements from one row, head or sequence to the next, of all tensors above, in any order.
    pub strides: Vec<usize>,
    /// Index width.
    pub address: AddressType,
}

/// Launches the pass. The spans must fit the caches and the rotation's positions.
#[allow(unsafe_code)]
pub fn launch(client: &Client, shape: &Shape, elem: ElemType, tensors: Tensors) {
    let mut lengths = tensors.strides;
    lengths.push(shape.head_dim / 2);
    let width = layout::width(client.properties(), elem, &lengths);
    let blueprint = Blueprint {
        heads: shape.heads,
        kv_heads: shape.kv_heads,
        half: shape.head_dim / 2 / width,
        width,
    };
    let total = shape.batch * shape.rows * blueprint.all() * blueprint.half;
    let (count, dim) = layout::alone(client, total);
    // SAFETY: a unit below `total` reads one row of `qkv`; positions are inside caches and rotation by
    // the caller's promise.
    unsafe {
        rope_append_rows::launch_unchecked(
            client,
            count,
            dim,
            tensors.address,
            width,
            tensors.qkv,
            tensors.rotation,
            tensors.table,
            tensors.query,
            tensors.key,
            tensors.value,
            total,
            shape.rows,
            blueprint,
            elem,
        );
    }
}
