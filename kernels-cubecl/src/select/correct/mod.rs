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
//! Only blocks that every row of a tile sees whole take part. A block of which all keys are kept is passed
//! over; so is a step of nothing but such blocks. Heads whose gate is 1 are left alone. Sums are f32, and
//! begin with what attention has found, so what is small beside it stays so.

mod left_out;
mod unit;

use cubecl::{
    client::Client,
    ir::{AddressType, DeviceProperties, ElemType},
    prelude::*,
};

use super::Shape;
use crate::{
    Refusal,
    attend::{QUERY_TILE, plan::fold},
};

/// Logarithm that stands for no keys at all; finite, since not every device has infinities.
const NOTHING_LEFT: f32 = -1.0e30;

/// Terms of the logit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// The mean.
    First,
    /// The mean and half the variance.
    Second,
}

/// What to add to a logit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Correction {
    /// Terms of the logit.
    pub order: Order,
    /// Most that the variance adds.
    pub cap: f32,
}

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
    /// Scalar units and shared memory, on every device.
    Unit,
}

/// What a kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Blueprint {
    head_dim: usize,
    tile_tokens: usize,
    segment: Segment,
    order: Order,
    with_lse: bool,
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
    /// Whether `corrected` is written.
    pub with_lse: bool,
    /// Index width that reaches every element of the largest buffer.
    pub address: AddressType,
}

/// Every way to compute it on a device, in the order of preference.
pub fn variants(_shape: &Shape, _elem: ElemType, _device: &DeviceProperties) -> Vec<Variant> {
    vec![Variant::Unit]
}

/// Launches the stage, by the first of the [`variants`] or by `variant`.
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
    let device = client.properties();
    let variant = variant.unwrap_or_else(|| variants(shape, elem, device)[0]);
    let pack = match shape.index_heads == shape.heads {
        true => 1,
        false => shape.heads / shape.kv_heads,
    };
    let groups = shape.heads / pack;
    let tile_rows = QUERY_TILE.min(shape.rows) * pack;
    let (rows, step, blocks) = match variant {
        Variant::Unit => (unit::ROWS, unit::KEYS, 128),
    };
    let splits = tile_rows.div_ceil(rows);
    let cubes = shape.batch * groups * shape.tiles() * splits;
    let grid = fold(cubes, device)?;
    let count = CubeCount::Static(grid.0, grid.1, 1);
    let blueprint = Blueprint {
        head_dim: shape.head_dim,
        tile_tokens: QUERY_TILE,
        segment: Segment { blocks, step },
        order: correction.order,
        with_lse: tensors.with_lse,
    };
    match variant {
        Variant::Unit => {
            let dim = CubeDim::new_2d(unit::UNITS_X as u32, unit::UNITS_Y as u32);
            // SAFETY: every index follows from the shape, and from an index whose invariants hold.
            unsafe {
                unit::correct_unit::launch_unchecked(
                    client,
                    count,
                    dim,
                    tensors.address,
                    tensors.query,
                    tensors.pooled,
                    tensors.table,
                    tensors.out,
                    tensors.lse,
                    tensors.corrected,
                    shape.batch as u32,
                    groups as u32,
                    pack as u32,
                    (shape.heads / shape.kv_heads) as u32,
                    shape.rows as u32,
                    shape.tiles() as u32,
                    splits as u32,
                    shape.index_heads as u32,
                    tensors.capacity as u32,
                    shape.scale,
                    correction.cap,
                    blueprint,
                    elem,
                );
            }
        }
    }
    Ok(())
}
