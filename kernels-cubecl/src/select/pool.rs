//! Key blocks summed up: mean key, variance of the keys, mean value.
//!
//!   mean_J = 1/n sum_j k_j    variance_J = 1/n sum_j (k_j - mean_J)^2    value_J = 1/n sum_j v_j
//!
//! over the `n` tokens that block `J` has, `min(BLOCK, kv_len - BLOCK J)`; per element of the head. Only
//! blocks that a new row falls into are computed; earlier ones have not changed and are left alone, so a
//! prompt in chunks gives the bits of the whole prompt.
//!
//! One cube owns one block of one KV head. It reads the block once: a unit keeps its vectors of the keys,
//! so the variance is taken about the mean that is already known, and nothing cancels. Sums in f32: a
//! unit's rows in order, then the slots of rows in order, through one board in shared memory.

use cubecl::{
    client::Client,
    ir::{AddressType, DeviceProperties, ElemType},
    prelude::*,
};

use super::{BLOCK, Shape};
use crate::{layout, table::Span};

/// Units of a cube; WebGPU guarantees as many.
const UNITS: usize = 256;

/// Compile-time parameters of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Blueprint {
    head_dim: usize,
    /// Elements of a vector.
    width: usize,
    units: usize,
}

impl Blueprint {
    fn new(head_dim: usize, elem: ElemType, device: &DeviceProperties) -> Self {
        let width = layout::width(device, elem, &[head_dim]);
        Self {
            head_dim,
            width,
            units: UNITS.min(device.hardware.max_units_per_cube as usize),
        }
    }

    /// Vectors of a row.
    fn vectors(&self) -> usize {
        self.head_dim / self.width
    }

    /// Rows that are read at once.
    fn slots(&self) -> usize {
        (self.units / self.vectors()).min(BLOCK)
    }

    /// Rows of a slot.
    fn rows(&self) -> usize {
        BLOCK.div_ceil(self.slots())
    }
}

#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn pool_blocks<E: Float, N: Size>(
    key: &Tensor<Vector<E, N>>,
    value: &Tensor<Vector<E, N>>,
    spans: &[u32],
    pooled: &mut [f32],
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
    let head = cube / new_blocks % heads;
    let b = cube / (new_blocks * heads);
    let span = Span::of(spans, b);
    let kv_len = span.kv_len;
    let first_block = span.offset() / comptime!(BLOCK as u32);
    let block = first_block + cube % new_blocks;
    let first = block * comptime!(BLOCK as u32);
    if span.query_len == 0 || first >= kv_len {
        terminate!();
    }
    let tokens = min(kv_len - first, comptime!(BLOCK as u32));

    let (vectors, slots, rows) = comptime!((bp.vectors(), bp.slots(), bp.rows()));
    let width = comptime!(bp.width);
    let unit = UNIT_POS as usize;
    let (slot, vector) = (unit / vectors, unit % vectors);
    let mut board = Shared::<[f32]>::new_slice(comptime!(bp.slots() * bp.head_dim));
    let mut mean = Shared::<[f32]>::new_slice(comptime!(bp.head_dim));

    let mut keys = Array::<Vector<f32, N>>::new(rows);
    let mut key_sum = Vector::<f32, N>::new(f32::new(0.0));
    let mut value_sum = Vector::<f32, N>::new(f32::new(0.0));
    let key_at = (b as usize * key.stride(0) + head as usize * key.stride(1)) / width + vector;
    let value_at =
        (b as usize * value.stride(0) + head as usize * value.stride(1)) / width + vector;
    #[unroll]
    for i in 0..rows {
        let row = slot + comptime!(i * slots);
        let mut k = Vector::<f32, N>::new(f32::new(0.0));
        let mut v = Vector::<f32, N>::new(f32::new(0.0));
        if slot < slots && (row as u32) < tokens {
            let position = first as usize + row;
            k = Vector::cast_from(key[key_at + position * (key.stride(2) / width)]);
            v = Vector::cast_from(value[value_at + position * (value.stride(2) / width)]);
        }
        keys[i] = k;
        key_sum += k;
        value_sum += v;
    }
    let share = 1.0 / f32::cast_from(tokens);
    let to = ((b * heads + head) as usize * capacity as usize + block as usize)
        * comptime!(3 * bp.head_dim);

    put(&mut board, key_sum, slot, vector, bp);
    sync_cube();
    let mut at = unit;
    while at < comptime!(bp.head_dim) {
        let total = slot_sum(&board, at, bp) * share;
        mean[at] = total;
        pooled[to + element(at, bp)] = total;
        at += comptime!(bp.units);
    }
    sync_cube();
    let mut middle = Vector::<f32, N>::new(f32::new(0.0));
    #[unroll]
    for e in 0..width {
        middle.insert(e, mean[vector + comptime!(e * vectors)]);
    }
    let mut square_sum = Vector::<f32, N>::new(f32::new(0.0));
    #[unroll]
    for i in 0..rows {
        let row = slot + comptime!(i * slots);
        if (row as u32) < tokens {
            let off = keys[i] - middle;
            square_sum += off * off;
        }
    }
    put(&mut board, square_sum, slot, vector, bp);
    sync_cube();
    at = unit;
    while at < comptime!(bp.head_dim) {
        pooled[to + comptime!(bp.head_dim) + element(at, bp)] = slot_sum(&board, at, bp) * share;
        at += comptime!(bp.units);
    }
    sync_cube();
    put(&mut board, value_sum, slot, vector, bp);
    sync_cube();
    at = unit;
    while at < comptime!(bp.head_dim) {
        pooled[to + comptime!(2 * bp.head_dim) + element(at, bp)] =
            slot_sum(&board, at, bp) * share;
        at += comptime!(bp.units);
    }
}

/// Element of a head at a place of the board, which holds the first elements of all vectors, then the
/// second ones: neighbours write to different banks.
#[cube]
fn element(at: usize, #[comptime] bp: Blueprint) -> usize {
    at % comptime!(bp.vectors()) * comptime!(bp.width) + at / comptime!(bp.vectors())
}

/// A unit's sums to its slot of the board.
#[cube]
fn put<N: Size>(
    board: &mut Shared<[f32]>,
    sum: Vector<f32, N>,
    slot: usize,
    vector: usize,
    #[comptime] bp: Blueprint,
) {
    if slot < comptime!(bp.slots()) {
        let at = slot * comptime!(bp.head_dim) + vector;
        #[unroll]
        for e in 0..comptime!(bp.width) {
            board[at + comptime!(e * bp.vectors())] = sum.extract(e);
        }
    }
}

/// The sum over slots at one place of the board.
#[cube]
fn slot_sum(board: &Shared<[f32]>, at: usize, #[comptime] bp: Blueprint) -> f32 {
    let mut total = f32::new(0.0);
    #[unroll]
    for slot in 0..comptime!(bp.slots()) {
        total += board[at + comptime!(slot * bp.head_dim)];
    }
    total
}

/// The buffers of a call. Keys and values have one element type, a contiguous last dimension and other
/// strides that are multiples of 8.
#[allow(missing_debug_implementations)] // launch arguments have none
pub struct Tensors {
    /// `[B, Hk, S, d]`.
    pub key: TensorArg,
    /// `[B, Hk, S, d]`.
    pub value: TensorArg,
    /// Begins with the spans `[B, 4]`.
    pub spans: BufferArg,
    /// `[B, Hk, capacity, 3, d]` in f32, contiguous: mean key, variance, mean value. Blocks that have a
    /// new row are written.
    pub pooled: BufferArg,
    /// Key blocks that `pooled` has room for, at least [`Shape::key_blocks`].
    pub capacity: usize,
    /// Index width that reaches every element of the largest buffer.
    pub address: AddressType,
}

/// Launches the stage.
#[allow(unsafe_code)]
pub fn launch(client: &Client, shape: &Shape, elem: ElemType, tensors: Tensors) {
    let blueprint = Blueprint::new(shape.head_dim, elem, client.properties());
    // New rows that begin inside a block reach into one more.
    let new_blocks = (shape.query_blocks() + 1).min(shape.key_blocks());
    let cubes = shape.batch * shape.kv_heads * new_blocks;
    let dim = CubeDim::new_1d(blueprint.units as u32);
    let count = cubecl::calculate_cube_count_elemwise(client, cubes * blueprint.units, dim);
    // SAFETY: cubes past the last leave at once, and those whose block no sequence has; the others read
    // tokens of their sequence and write their block, which the capacity covers.
    unsafe {
        pool_blocks::launch_unchecked(
            client,
            count,
            dim,
            tensors.address,
            blueprint.width,
            tensors.key,
            tensors.value,
            tensors.spans,
            tensors.pooled,
            shape.kv_heads as u32,
            new_blocks as u32,
            tensors.capacity as u32,
            cubes as u32,
            blueprint,
            elem,
        );
    }
}
