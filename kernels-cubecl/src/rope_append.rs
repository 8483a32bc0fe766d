//! From the product of queries, keys and values to attention's operands, in one pass: queries and keys
//! are rotated, keys and values go where they stay, into their caches.
//!
//!   y[..h] = x[..h] cos - x[h..] sin
//!   y[h..] = x[h..] cos + x[..h] sin      h = d / 2
//!
//! with cosine and sine of the row's absolute position, which is the first cached key's plus `kv_len - query_len + i`, its place in
//! the cache. In f32, rounded once; values are moved bit for bit. Padded rows become zeros among the queries and are not written to the caches.
//! One unit takes one vector of a head's first half and its partner of the second.
//!
//! Caches may be bytes ([`crate::int8`]): then the units of a head share a cube, and agree on its largest
//! magnitude before they round, f32 to bytes.

use cubecl::{
    client::Client,
    ir::{AddressType, ElemType},
    prelude::*,
};

use crate::{
    int8::{self, CachePart, WORD},
    layout,
    table::Span,
};

/// Compile-time parameters of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Blueprint {
    heads: usize,
    kv_heads: usize,
    /// Vectors of half a head.
    half: usize,
    /// Elements of a vector.
    width: usize,
    /// The caches are bytes.
    int8: bool,
}

impl Blueprint {
    /// Heads of query, key and value together.
    fn all(&self) -> usize {
        self.heads + 2 * self.kv_heads
    }

    /// Elements of a vector of the caches.
    fn stored(&self) -> usize {
        match self.int8 {
            true => self.width / int8::PER_WORD,
            false => self.width,
        }
    }
}

#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn rope_append_rows<E: Float, N: Size, T: Numeric, M: Size>(
    qkv: &Tensor<Vector<E, N>>,
    rotation: &Tensor<Vector<f32, N>>,
    table: &[u32],
    query: &mut [Vector<E, N>],
    key: &mut Tensor<Vector<T, M>>,
    value: &mut Tensor<Vector<T, M>>,
    scales: ComptimeOption<&mut Tensor<f32>>,
    total: usize,
    rows: usize,
    #[comptime] bp: Blueprint,
    #[define(E)] _elem: ElemType,
    #[define(T)] _stored: ElemType,
) {
    let half = comptime!(bp.half);
    let width = comptime!(bp.width);
    let stored = comptime!(bp.stored());
    let heads = comptime!(bp.heads);
    let turned = comptime!(bp.heads + bp.kv_heads);
    let mut at = ABSOLUTE_POS;
    let mut live = at < total;
    if comptime!(bp.int8) {
        let units = comptime!(int8::units_of_rows(bp.half));
        at = CUBE_POS * units + UNIT_POS as usize;
        live = at < total && (UNIT_POS as usize) < units;
    }
    let vector = at % half;
    let head = at / half % comptime!(bp.all());
    let row = at / comptime!(bp.half * bp.all());
    let b = row / rows;
    let i = row % rows;
    let to_query = (row * heads + head) * comptime!(2 * bp.half) + vector;

    // What goes into a cache that is bytes, after all units of the head have come so far.
    let mut position = 0usize;
    let mut cached = false.runtime();
    let mut wide_first = Vector::<f32, N>::new(f32::new(0.0));
    let mut wide_second = Vector::<f32, N>::new(f32::new(0.0));
    if live {
        let span = Span::of(table, b as u32);
        let (q_len, kv_len) = (span.query_len as usize, span.kv_len as usize);
        if i < q_len {
            position = kv_len - q_len + i;
            let from = row * (qkv.stride(0) / width) + head * comptime!(2 * bp.half) + vector;
            let first = qkv[from];
            let second = qkv[from + half];
            cached = head >= heads;
            if head < turned {
                let absolute = Span::first(table, b as u32) as usize + position;
                let at = absolute * (rotation.stride(0) / width) + vector;
                let cos = rotation[at];
                let sin = rotation[at + half];
                let first = Vector::<f32, N>::cast_from(first);
                let second = Vector::<f32, N>::cast_from(second);
                wide_first = first * cos - second * sin;
                wide_second = second * cos + first * sin;
                if head < heads {
                    query[to_query] = Vector::cast_from(wide_first);
                    query[to_query + half] = Vector::cast_from(wide_second);
                } else if comptime!(!bp.int8) {
                    let to = b * (key.stride(0) / width)
                        + (head - heads) * (key.stride(1) / width)
                        + position * (key.stride(2) / width)
                        + vector;
                    key[to] = Vector::cast_from(wide_first);
                    key[to + half] = Vector::cast_from(wide_second);
                }
            } else if comptime!(bp.int8) {
                wide_first = Vector::cast_from(first);
                wide_second = Vector::cast_from(second);
            } else {
                let to = b * (value.stride(0) / width)
                    + (head - turned) * (value.stride(1) / width)
                    + position * (value.stride(2) / width)
                    + vector;
                value[to] = Vector::cast_from(first);
                value[to + half] = Vector::cast_from(second);
            }
        } else if head < heads {
            query[to_query] = Vector::new(E::new(0.0));
            query[to_query + half] = Vector::new(E::new(0.0));
        }
    }
    #[comptime]
    match scales {
        ComptimeOption::Some(scales) => {
            let own = max(
                int8::magnitude(wide_first, width),
                int8::magnitude(wide_second, width),
            );
            let units = comptime!(layout::UNITS as usize);
            let largest = int8::row_magnitude(own, vector, half, units);
            if cached {
                let first =
                    Vector::<T, M>::cast_from(int8::pack::<N, M>(wide_first, largest, width));
                let second =
                    Vector::<T, M>::cast_from(int8::pack::<N, M>(wide_second, largest, width));
                let is_key = head < turned;
                let kv_head = select(is_key, head - heads, head - turned);
                let mut part = comptime!(CachePart::Value.index()).runtime();
                if is_key {
                    part = comptime!(CachePart::Key.index()).runtime();
                    let to = b * key.stride(0) + kv_head * key.stride(1) + position * key.stride(2);
                    let to = to / stored + vector;
                    key[to] = first;
                    key[to + half] = second;
                } else {
                    let to = b * value.stride(0)
                        + kv_head * value.stride(1)
                        + position * value.stride(2);
                    let to = to / stored + vector;
                    value[to] = first;
                    value[to + half] = second;
                }
                if vector == 0 {
                    let at = b * scales.stride(0)
                        + kv_head * scales.stride(1)
                        + part * scales.stride(2)
                        + position;
                    scales[at] = int8::scale(largest);
                }
            }
        }
        ComptimeOption::None => {}
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
    /// Written at each sequence's new positions: `[B, Hk, S, d]`, or words `[B, Hk, S, d / 4]`.
    pub key: TensorArg,
    /// As `key`.
    pub value: TensorArg,
    /// Scales of int8 keys and values, `[B, Hk, 2, S]`, written beside them.
    pub scales: Option<TensorArg>,
    /// Elements from one row, head or sequence to the next, of all tensors above that hold elements, in any order.
    pub strides: Vec<usize>,
    /// Index width.
    pub address: AddressType,
}

/// Launches the pass. The spans must fit the caches and the rotation's positions. Where keys and values are
/// bytes, the head dimension and all strides are multiples of 8, and the strides of words of 2.
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
        int8: tensors.scales.is_some(),
    };
    let total = shape.batch * shape.rows * blueprint.all() * blueprint.half;
    let ((count, dim), stored) = match blueprint.int8 {
        true => (int8::row_cubes(client, total, blueprint.half), WORD),
        false => (layout::alone(client, total), elem),
    };
    // SAFETY: a unit below `total` reads one row of `qkv`; positions are inside caches and rotation by
    // the caller's promise.
    unsafe {
        rope_append_rows::launch_unchecked(
            client,
            count,
            dim,
            tensors.address,
            width,
            blueprint.stored(),
            tensors.qkv,
            tensors.rotation,
            tensors.table,
            tensors.query,
            tensors.key,
            tensors.value,
            tensors.scales.into(),
            total,
            shape.rows,
            blueprint,
            elem,
            stored,
        );
    }
}
