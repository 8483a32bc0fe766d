//! Mean keys of blocks of [`MEAN_BLOCK`] keys: those that a new row falls into, the others are left as they are.
//!
//! One cube owns a block of a KV head. Sums in f32: a unit's rows in order, then the slots of rows in order;
//! so a prompt in chunks gives the bits of the whole prompt.

use cubecl::{
    client::Client,
    ir::{AddressType, DeviceProperties, ElemType},
    prelude::*,
};

use super::MEAN_BLOCK;
use crate::{layout, select::Shape, table::Span};

/// Units of a cube; WebGPU guarantees as many.
const UNITS: usize = 256;

/// Compile-time parameters of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Blueprint {
    vectors: usize,
    width: usize,
    units: usize,
}

impl Blueprint {
    fn new(head_dim: usize, elem: ElemType, device: &DeviceProperties) -> Self {
        let width = layout::width(device, elem, &[head_dim]);
        Self {
            vectors: head_dim / width,
            width,
            units: UNITS.min(device.hardware.max_units_per_cube as usize),
        }
    }

    /// Rows that are read at once.
    fn slots(&self) -> usize {
        (self.units / self.vectors).min(MEAN_BLOCK)
    }
}

#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn mean_keys<E: Float, N: Size>(
    key: &Tensor<Vector<E, N>>,
    spans: &[u32],
    means: &mut [Vector<E, N>],
    heads: u32,
    new_blocks: u32,
    capacity: u32,
    cubes: u32,
    #[comptime] bp: Blueprint,
    #[define(E)] _elem: ElemType,
) {
    let cube = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
    if cube >= cubes {
        terminate!();
    }
    let size = comptime!(MEAN_BLOCK as u32);
    let head = cube / new_blocks % heads;
    let b = cube / (new_blocks * heads);
    let span = Span::of(spans, b);
    let block = span.offset() / size + cube % new_blocks;
    let first = block * size;
    if span.query_len == 0 || first >= span.kv_len {
        terminate!();
    }
    let tokens = min(span.kv_len - first, size);

    let (vectors, slots) = comptime!((bp.vectors, bp.slots()));
    let unit = UNIT_POS as usize;
    let (slot, vector) = (unit / vectors, unit % vectors);
    let mut board = Shared::<[Vector<f32, N>]>::new_slice(comptime!(bp.slots() * bp.vectors));
    let at =
        (b as usize * key.stride(0) + head as usize * key.stride(1)) / comptime!(bp.width) + vector;
    let stride = key.stride(2) / comptime!(bp.width);
    let mut sum = Vector::<f32, N>::new(f32::new(0.0));
    #[unroll]
    for i in 0..comptime!(MEAN_BLOCK.div_ceil(slots)) {
        let row = slot + comptime!(i * slots);
        if slot < slots && (row as u32) < tokens {
            sum += Vector::cast_from(key[at + (first as usize + row) * stride]);
        }
    }
    if slot < slots {
        board[slot * vectors + vector] = sum;
    }
    sync_cube();
    if unit < vectors {
        let mut total = board[unit];
        #[unroll]
        for i in 1..slots {
            total += board[comptime!(i * vectors) + unit];
        }
        let to = ((b * heads + head) as usize * capacity as usize + block as usize) * vectors;
        let share = 1.0 / f32::cast_from(tokens);
        means[to + unit] = Vector::cast_from(total * Vector::new(share));
    }
}

/// The buffers of a call. Keys have a contiguous last dimension and other strides that are multiples of 8.
#[allow(missing_debug_implementations)] // launch arguments have none
pub struct Tensors {
    /// `[B, Hk, S, d]`.
    pub key: TensorArg,
    /// Begins with the spans `[B, 4]`.
    pub spans: BufferArg,
    /// `[B, Hk, capacity, d]` in the keys' element type, contiguous. Blocks that have a new row are written.
    pub means: BufferArg,
    /// Blocks that `means` has room for, at least those of the shape's keys.
    pub capacity: usize,
    /// Index width that reaches every element of the largest buffer.
    pub address: AddressType,
}

/// Launches the stage for a shape whose rows are the new ones.
#[allow(unsafe_code)]
pub fn launch(client: &Client, shape: &Shape, elem: ElemType, tensors: Tensors) {
    let blueprint = Blueprint::new(shape.head_dim, elem, client.properties());
    let blocks = shape.keys.div_ceil(MEAN_BLOCK);
    // New rows that begin inside a block reach into one more.
    let new_blocks = (shape.rows.div_ceil(MEAN_BLOCK) + 1).min(blocks);
    let cubes = shape.batch * shape.kv_heads * new_blocks;
    let (count, dim) = layout::cubes(client, cubes, blueprint.units);
    // SAFETY: cubes past the last leave at once, and those whose block no sequence has; the others read
    // tokens of their sequence and write their block, which the capacity covers.
    unsafe {
        mean_keys::launch_unchecked(
            client,
            count,
            dim,
            tensors.address,
            blueprint.width,
            tensors.key,
            tensors.spans,
            tensors.means,
            shape.kv_heads as u32,
            new_blocks as u32,
            tensors.capacity as u32,
            cubes as u32,
            blueprint,
            elem,
        );
    }
}
