//! The keys that an index leaves out, as if each key block were one pseudo key.
//!
//! For a block of which a tile leaves out `n` keys, the row with query `q` gets a key with
//!
//!   logit = s q . mean + min(s^2 / 2 sum_d q_d^2 variance_d, cap) + ln n    value = mean value
//!
//! merged into its output and log-sum-exp, `s` being the softmax scale. Without the middle term this is
//! the zero-order correction of FlashPrefill V2 (arXiv 2608.19758); it is the second-order term of
//! `ln E exp(x) = mean + variance / 2` for logits that are Gaussian over the block, with independent
//! elements. The sums are of the whole block, as if what was left out were a fair sample of it.
//!
//! Only blocks that every row of a tile sees whole take part, also through a window. A block of which all keys are kept is passed
//! over; so is a step of nothing but such blocks. Heads whose gate is 1 are left alone. Sums are f32, and
//! begin with what attention has found, so what is small beside it stays so.

// A comptime condition is an `if` of its own: it decides what is compiled.
#![allow(clippy::collapsible_if)]

mod left_out;
mod mma;
mod unit;

use cubecl::{
    client::Client,
    ir::{AddressType, DeviceProperties, ElemType, FloatKind},
    prelude::*,
    server::Handle,
};
use mma::MmaCorrection;
pub use sparse_accelerate_contract::{Correction, Order};

use super::{BLOCK, Shape};
use crate::{
    Refusal,
    attend::{
        Instruction, MmaBlueprint, QUERY_TILE,
        mma::{PLANE, VECTOR, serves},
        plan::fold,
    },
    layout,
    table::{CallLaunch, Place, Serves, Tiling, Window},
    tile::unit::{KEYS, PER_UNIT, UNITS_X},
};

/// Logarithm that stands for no keys at all; finite, since not every device has infinities.
const NOTHING_LEFT: f32 = -1.0e30;

/// Key blocks that are counted at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Segment {
    pub(crate) blocks: usize,
    /// Blocks per step; divides them.
    pub(crate) step: usize,
}

/// How it is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Variant {
    /// Matrix units with operands in registers; f16 and bf16.
    Mma(MmaBlueprint),
    /// Scalar units and shared memory, on every device.
    Unit,
}

/// The compile-time choices of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Blueprint {
    head_dim: usize,
    tile_tokens: usize,
    segment: Segment,
    order: Order,
    with_lse: bool,
}

impl Blueprint {
    fn tiling(&self, rows: usize) -> Tiling {
        Tiling {
            rows,
            tile_tokens: self.tile_tokens,
            serves: Serves::Sparse,
        }
    }
}

/// End of the key blocks that every row of the cube's tile sees whole; 0 if there are none.
#[cube]
fn whole_blocks(place: &Place, window: &Window) -> u32 {
    let mut blocks = 0u32;
    if place.has_rows() {
        blocks = (place.offset + place.tile_first) / comptime!(BLOCK as u32);
    }
    if comptime!(window.some) {
        if first_whole(place, window) >= blocks {
            blocks = 0u32;
        }
    }
    blocks
}

/// First of those blocks: the tile's last row has lost most.
#[cube]
fn first_whole(place: &Place, window: &Window) -> u32 {
    if comptime!(window.some) {
        let end = min(
            place.tile_first + comptime!(QUERY_TILE as u32),
            place.span.query_len,
        );
        window
            .first_key(place.offset + end - 1)
            .div_ceil(comptime!(BLOCK as u32))
    } else {
        0u32.runtime()
    }
}

/// First of the KV head's blocks in `pooled`, which has room for `capacity` of every head.
#[cube]
fn pooled_at(place: &Place, capacity: u32) -> usize {
    let kv_heads = place.call.groups * place.call.packed_heads / place.call.heads_per_kv;
    (place.b * kv_heads + place.kv_head) as usize * capacity as usize
}

/// The buffers of a call. Query and output share one element type, have a contiguous last dimension and
/// other strides that are multiples of 8.
#[allow(missing_debug_implementations)] // launch arguments have none
pub struct Tensors {
    /// `[B, Hq, N, d]`.
    pub query: TensorArg,
    /// `[B, Hk, capacity, 3, d]` as [`super::pool`] writes it.
    pub pooled: BufferArg,
    /// Key blocks that `pooled` has room for.
    pub capacity: usize,
    /// The index: spans, rows, gates, ranges, columns.
    pub table: BufferArg,
    /// `[B, Hq, N, d]`: attention over the index, corrected in place.
    pub out: TensorArg,
    /// `[B, Hq, N]`: its log-sum-exp.
    pub lse: BufferArg,
    /// `[B, Hq, N]`, written for heads whose gate is 0, or any one f32 when not wanted.
    pub corrected: BufferArg,
    /// `corrected` is written.
    pub with_lse: bool,
    /// Index width that reaches every element of the largest buffer.
    pub address: AddressType,
}

/// Key blocks that matrix units count at once: all of 128K tokens.
const MANY_BLOCKS: usize = 1024;
/// Steps of a segment: their bits are one word.
const MOST_STEPS: usize = u32::BITS as usize;
/// Key blocks that scalar units count at once, within WebGPU's 16 KiB.
const FEW_BLOCKS: usize = 128;

impl Variant {
    /// Query rows of a cube.
    fn rows(&self) -> usize {
        match self {
            Self::Mma(tile) => tile.rows(),
            Self::Unit => unit::UNITS_Y * PER_UNIT,
        }
    }

    fn segment(&self) -> Segment {
        let (blocks, step) = match self {
            Self::Mma(tile) => (MANY_BLOCKS.min(MOST_STEPS * tile.keys), tile.keys),
            Self::Unit => (FEW_BLOCKS, KEYS),
        };
        Segment { blocks, step }
    }

    fn blueprint(&self, head_dim: usize, order: Order, with_lse: bool) -> Blueprint {
        Blueprint {
            head_dim,
            tile_tokens: QUERY_TILE,
            segment: self.segment(),
            order,
            with_lse,
        }
    }
}

/// Query heads that a cube packs into its rows.
fn packed_heads(shape: &Shape) -> usize {
    match shape.index_heads == shape.heads {
        true => 1,
        false => shape.heads / shape.kv_heads,
    }
}

/// Every way to compute it on a device, in the order of preference; the last needs nothing.
pub fn variants(shape: &Shape, elem: ElemType, device: &DeviceProperties) -> Vec<Variant> {
    let mut all = Vec::new();
    if serves(elem, device) {
        let packed = QUERY_TILE.min(shape.rows) * packed_heads(shape);
        let wide = shape.head_dim <= 128 && packed > QUERY_TILE;
        let m_tiles = if wide { 2 } else { 1 };
        let tile = MmaBlueprint {
            head_dim: shape.head_dim,
            instruction: Instruction::Mma,
            half: elem == ElemType::Float(FloatKind::F16),
            planes: 4,
            m_tiles,
            // With more, what the sums of means and variances and the output take is spilled.
            keys: if m_tiles * shape.head_dim <= 128 {
                32
            } else {
                16
            },
            query_in_registers: false,
            asynchronous: device.features.copy_async,
            late_values: false,
            tile_tokens: QUERY_TILE,
            indexed: true,
            columns: true,
            banded: false,
            gated: true,
            windowed: false,
        };
        let common = Variant::Mma(tile).blueprint(tile.head_dim, Order::Second, true);
        let needed = MmaCorrection { common, tile }.shared_bytes();
        if needed <= device.hardware.max_shared_memory_size {
            all.push(Variant::Mma(tile));
        }
    }
    all.push(Variant::Unit);
    all
}

/// Launches the stage, by the first of the [`variants`] or by a given one of them; nothing for
/// [`Correction::None`].
///
/// # Errors
/// [`Refusal::TooLarge`] for more cubes than the device's grid has.
#[allow(unsafe_code)]
pub fn launch(
    client: &Client,
    shape: &Shape,
    correction: Correction,
    elem: ElemType,
    variant: Option<Variant>,
    tensors: Tensors,
) -> Result<(), Refusal> {
    let Some(order) = correction.order() else {
        return Ok(());
    };
    let device = client.properties();
    let variant = variant.unwrap_or_else(|| variants(shape, elem, device)[0]);
    let packed_heads = packed_heads(shape);
    let groups = shape.heads / packed_heads;
    let tile_rows = QUERY_TILE.min(shape.rows) * packed_heads;
    let splits = tile_rows.div_ceil(variant.rows());
    let cubes = shape.batch * groups * shape.tiles() * splits;
    let grid = fold(cubes, device)?;
    let count = CubeCount::Static(grid.0, grid.1, 1);
    let call = CallLaunch::new(
        shape.batch as u32,
        groups as u32,
        packed_heads as u32,
        (shape.heads / shape.kv_heads) as u32,
        shape.rows as u32,
        shape.tiles() as u32,
        splits as u32,
        shape.index_heads as u32,
        shape.scale,
    );
    let common = variant.blueprint(shape.head_dim, order, tensors.with_lse);
    macro_rules! run {
        ($kernel:path, $dim:expr, [$($width:expr)?], $pooled:expr, $blueprint:expr) => {
            // SAFETY: every index follows from the shape, and from an index whose invariants hold.
            unsafe {
                $kernel(
                    client,
                    count,
                    $dim,
                    tensors.address,
                    $($width,)?
                    tensors.query,
                    $pooled,
                    tensors.table,
                    tensors.out,
                    tensors.lse,
                    tensors.corrected,
                    call,
                    tensors.capacity as u32,
                    correction.cap(),
                    shape.window().into(),
                    $blueprint,
                    elem,
                )
            }
        };
    }
    match variant {
        Variant::Mma(tile) => {
            let dim = CubeDim::new_2d(PLANE as u32, tile.planes as u32);
            let rows = shape.batch * shape.kv_heads * tensors.capacity * 3;
            let total = rows * shape.head_dim;
            let narrow = narrowed(client, total, elem, tensors.pooled);
            let strides = [total, total, shape.head_dim, 1];
            let dims = [1, 1, rows, shape.head_dim];
            // SAFETY: `total` elements, contiguous.
            let pooled = unsafe { TensorArg::from_raw_parts(narrow, strides.into(), dims.into()) };
            let blueprint = MmaCorrection { common, tile };
            run!(
                mma::correct_mma::launch_unchecked,
                dim,
                [VECTOR],
                pooled,
                blueprint
            );
        }
        Variant::Unit => {
            let dim = CubeDim::new_2d(UNITS_X as u32, unit::UNITS_Y as u32);
            run!(
                unit::correct_unit::launch_unchecked,
                dim,
                [],
                tensors.pooled,
                common
            );
        }
    }
    Ok(())
}

/// `total` elements of pooled blocks in the element type of matrix units.
#[allow(unsafe_code)]
pub(super) fn narrowed(client: &Client, total: usize, elem: ElemType, pooled: BufferArg) -> Handle {
    let handle = client.empty(total * elem.size());
    let vectors = total / VECTOR;
    let (count, dim) = layout::alone(client, vectors);
    let half = elem == ElemType::Float(FloatKind::F16);
    // SAFETY: both buffers have `total` elements, a multiple of the vector.
    unsafe {
        let out = BufferArg::from_raw_parts(handle.clone(), total);
        mma::narrow::launch_unchecked(client, count, dim, VECTOR, pooled, out, vectors, half, elem);
    }
    handle
}
