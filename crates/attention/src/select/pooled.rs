//! Pooled keys of a layer, brought up to date chunk by chunk.

use burn::{
    backend::Dispatch,
    tensor::{DType, Device, Int, Tensor, TensorData},
};

use sparse_accelerate_contract::{Sequence, table};

use super::{BLOCK, MEAN_BLOCK};
use crate::{attend::same, error::AttentionError, ops::SelectionOps, plan::AttentionPlan};

/// Mean key, variance of the keys and mean value of every key block of every sequence; or, for
/// [`crate::Pattern::GroupBlocks`], mean keys alone, of smaller blocks.
///
/// Only blocks that new tokens fall into are computed; so a prompt gives the same bits in one piece and
/// in many. A plan that wants the other kind makes them anew.
#[derive(Debug, Clone)]
pub struct PooledKeys {
    /// `[B, Hk, blocks, 3, d]`, of means `[B, Hk, blocks, 1, d]`.
    tensor: Tensor<5>,
    /// Tokens pooled of each sequence.
    lens: Vec<usize>,
}

impl PooledKeys {
    /// Room for sequences of up to `capacity` tokens, none pooled yet.
    pub fn new([batch, kv_heads, capacity, head_dim]: [usize; 4], device: &Device) -> Self {
        let dims = Self::dims([batch, kv_heads, capacity, head_dim]);
        Self {
            tensor: Tensor::zeros(dims, (device, DType::F32)),
            lens: vec![0; batch],
        }
    }

    /// The same for mean keys alone, of blocks of [`MEAN_BLOCK`] tokens, in the keys' element type.
    pub fn means(
        [batch, kv_heads, capacity, head_dim]: [usize; 4],
        dtype: DType,
        device: &Device,
    ) -> Self {
        let dims = [batch, kv_heads, capacity.div_ceil(MEAN_BLOCK), 1, head_dim];
        Self {
            tensor: Tensor::zeros(dims, (device, dtype)),
            lens: vec![0; batch],
        }
    }

    /// Tells whether it holds mean keys alone.
    pub fn means_alone(&self) -> bool {
        self.tensor.dims()[3] == 1
    }

    fn dims([batch, kv_heads, capacity, head_dim]: [usize; 4]) -> [usize; 5] {
        [batch, kv_heads, capacity.div_ceil(BLOCK), 3, head_dim]
    }

    /// Bytes that [`PooledKeys::new`] of the same dimensions takes.
    pub fn bytes(dims: [usize; 4]) -> u64 {
        let each = size_of::<f32>() as u64;
        Self::dims(dims)
            .iter()
            .fold(each, |bytes, &n| bytes.saturating_mul(n as u64))
    }

    /// Forgets what comes after the first `len` tokens of every sequence.
    pub fn truncate(&mut self, len: usize) {
        for held in &mut self.lens {
            *held = len.min(*held);
        }
    }

    /// `[B, Hk, blocks, 3, d]` in f32: in each block the mean key, the variance of the keys, the mean value; or
    /// `[B, Hk, blocks, 1, d]`, the mean keys in their element type.
    pub fn tensor(&self) -> &Tensor<5> {
        &self.tensor
    }

    /// Pools what the sequences of a plan have beyond what is pooled already.
    pub(super) fn update(
        &mut self,
        key: &Tensor<4>,
        value: &Tensor<4>,
        plan: &AttentionPlan,
        group: bool,
    ) -> Result<(), AttentionError> {
        if self.means_alone() != group {
            let [b, h, blocks, _, d] = self.tensor.dims();
            *self = match group {
                true => Self::means([b, h, blocks * BLOCK, d], key.dtype(), &key.device()),
                false => Self::new([b, h, blocks * MEAN_BLOCK, d], &key.device()),
            };
        }
        let [batch, kv_heads, _, head_dim] = key.dims();
        let [b, h, blocks, _, d] = self.tensor.dims();
        let op = "pooled keys";
        let size = if group { MEAN_BLOCK } else { BLOCK };
        same(
            op,
            "their batch, heads and head dim",
            [b, h, d],
            [batch, kv_heads, head_dim],
        )?;
        let longest = plan.spans().iter().map(|s| s.kv_len).max().unwrap_or(0);
        let needed = longest.div_ceil(size);
        same(op, "their blocks", [blocks.min(needed)], [needed])?;
        let follows = |(len, span): (&usize, &crate::Span)| *len == span.offset();
        let table = match self.lens.iter().zip(plan.spans()).all(follows) {
            true => plan.table(),
            false => self.behind(plan, &key.device()),
        };
        let pool = |pooled: Tensor<5>| {
            Tensor::from_dispatch(Dispatch::pool(
                key.clone().into_dispatch(),
                value.clone().into_dispatch(),
                pooled.into_dispatch(),
                table.into_dispatch(),
            ))
        };
        self.tensor.inplace(pool);
        for (len, span) in self.lens.iter_mut().zip(plan.spans()) {
            *len = span.kv_len;
        }
        Ok(())
    }

    /// Spans whose new rows are those that are not pooled yet.
    fn behind(&self, plan: &AttentionPlan, device: &Device) -> Tensor<1, Int> {
        let spans = self.lens.iter().zip(plan.spans());
        let words = table::spans(spans.map(|(len, span)| {
            let from = (*len).min(span.offset());
            Sequence::new(span.kv_len - from, span.kv_len)
        }));
        let count = words.len();
        Tensor::from_data(TensorData::new(words, [count]), (device, DType::U32))
    }
}
