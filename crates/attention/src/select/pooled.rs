//! Pooled keys of a layer, brought up to date chunk by chunk.

use burn::{
    backend::Dispatch,
    tensor::{DType, Device, Int, Tensor, TensorData},
};

use sparse_accelerate_contract::{Sequence, table};

use super::BLOCK;
use crate::{attend::same, error::AttentionError, ops::SelectionOps, plan::AttentionPlan};

/// Mean key, variance of the keys and mean value of every key block of every sequence.
///
/// Only blocks that new tokens fall into are computed; so a prompt gives the same bits in one piece and
/// in many.
#[derive(Debug, Clone)]
pub struct PooledKeys {
    /// `[B, Hk, blocks, 3, d]`.
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

    /// `[B, Hk, blocks, 3, d]` in f32: in each block the mean key, the variance of the keys, the mean value.
    pub fn tensor(&self) -> &Tensor<5> {
        &self.tensor
    }

    /// Pools what the sequences of a plan have beyond what is pooled already.
    pub(super) fn update(
        &mut self,
        key: &Tensor<4>,
        value: &Tensor<4>,
        plan: &AttentionPlan,
    ) -> Result<(), AttentionError> {
        let [batch, kv_heads, _, head_dim] = key.dims();
        let [b, h, blocks, _, d] = self.tensor.dims();
        let op = "pooled keys";
        same(
            op,
            "their batch, heads and head dim",
            [b, h, d],
            [batch, kv_heads, head_dim],
        )?;
        let longest = plan.spans().iter().map(|s| s.kv_len).max().unwrap_or(0);
        let needed = longest.div_ceil(BLOCK);
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
