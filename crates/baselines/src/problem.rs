//! One call's tensors with their spans, checked once, and pieces of them as matrices.

use std::ops::Range;

use burn::tensor::{DType, Device, Tensor, TensorData};

use sparse_accelerate::{AttentionError, Span, index::QUERY_TILE};

use crate::{BLOCK, OP};

pub(crate) struct Problem<'a> {
    query: &'a Tensor<4>,
    key: &'a Tensor<4>,
    pub(crate) spans: &'a [Span],
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
}

impl<'a> Problem<'a> {
    pub(crate) fn new(
        query: &'a Tensor<4>,
        key: &'a Tensor<4>,
        spans: &'a [Span],
    ) -> Result<Self, AttentionError> {
        Span::validate_batch(spans)?;
        let ([batch, heads, rows, dim], [kb, kv_heads, keys, kd]) = (query.dims(), key.dims());
        same("the key's batch and head dim", [kb, kd], [batch, dim])?;
        same("the number of spans", [spans.len()], [batch])?;
        let longest = spans.iter().map(|s| s.query_len).max().unwrap_or(0);
        same("the number of query rows", [rows], [longest])?;
        let held = spans.iter().map(|s| s.kv_len).max().unwrap_or(0);
        if held > keys {
            return Err(AttentionError::Shape {
                op: OP,
                what: "a span's kv_len",
                got: held.to_string(),
                expected: format!("at most the {keys} keys given"),
                hint: "append the new keys before selecting",
            });
        }
        if kv_heads == 0 || heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(AttentionError::Setting {
                op: OP,
                field: "query heads",
                got: heads.to_string(),
                limit: format!("a multiple of the KV heads ({kv_heads})"),
                hint: "grouped-query attention shares each KV head among equally many query heads",
            });
        }
        Ok(Self {
            query,
            key,
            spans,
            heads,
            kv_heads,
            head_dim: dim,
        })
    }

    /// Refuses sequences whose query tiles would straddle two blocks.
    pub(crate) fn on_grid(&self) -> Result<(), AttentionError> {
        match self
            .spans
            .iter()
            .find(|s| !s.offset().is_multiple_of(QUERY_TILE))
        {
            None => Ok(()),
            Some(span) => Err(AttentionError::Setting {
                op: OP,
                field: "offset",
                got: span.offset().to_string(),
                limit: format!("a multiple of {QUERY_TILE}"),
                hint: "cut the prompt into chunks of a multiple of 64 tokens",
            }),
        }
    }

    /// Query heads per KV head.
    pub(crate) fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Softmax scale, `1 / sqrt(d)`.
    pub(crate) fn scale(&self) -> f64 {
        (self.head_dim as f64).sqrt().recip()
    }

    /// Rows of consecutive query heads, `[heads, rows, d]` in the tensors' type.
    pub(crate) fn query(
        &self,
        sequence: usize,
        heads: Range<usize>,
        rows: Range<usize>,
    ) -> Tensor<3> {
        let dims = [heads.len(), rows.len(), self.head_dim];
        let one = sequence..sequence + 1;
        let part = self.query.clone();
        part.slice([one, heads, rows, 0..self.head_dim])
            .reshape(dims)
    }

    /// The filled keys of a KV head, `[kv_len, d]` in the tensors' type.
    pub(crate) fn key(&self, sequence: usize, kv_head: usize) -> Tensor<2> {
        let len = self.spans[sequence].kv_len;
        let part = self.key.clone().slice([
            sequence..sequence + 1,
            kv_head..kv_head + 1,
            0..len,
            0..self.head_dim,
        ]);
        part.reshape([len, self.head_dim])
    }

    /// Means of K over each block's real tokens, `[ceil(kv_len / 128), d]` in f32.
    pub(crate) fn pooled_key(&self, sequence: usize, kv_head: usize) -> Tensor<2> {
        let len = self.spans[sequence].kv_len;
        block_means(self.key(sequence, kv_head), 0, len, BLOCK)
    }

    /// Means of Q over each absolute block's new rows, `[blocks, d]` in f32.
    pub(crate) fn pooled_query(&self, sequence: usize, head: usize) -> Tensor<2> {
        let span = self.spans[sequence];
        let rows = self.query(sequence, head..head + 1, 0..span.query_len);
        let rows = rows.reshape([span.query_len, self.head_dim]);
        block_means(rows, span.offset() % BLOCK, span.query_len, BLOCK)
    }
}

fn same<const N: usize>(
    what: &'static str,
    got: [usize; N],
    expected: [usize; N],
) -> Result<(), AttentionError> {
    if got == expected {
        return Ok(());
    }
    Err(AttentionError::Shape {
        op: OP,
        what,
        got: format!("{got:?}"),
        expected: format!("{expected:?}"),
        hint: "query is [B, Hq, N, d], key is [B, Hk, S, d]",
    })
}

/// Means in f32 over blocks of `size` rows of which the first starts `skip` rows before row 0; only real rows
/// count.
pub(crate) fn block_means(rows: Tensor<2>, skip: usize, len: usize, size: usize) -> Tensor<2> {
    let [_, dim] = rows.dims();
    let blocks = (skip + len).div_ceil(size);
    let counts: Vec<f32> = (0..blocks)
        .map(|b| ((b + 1) * size).min(skip + len) - (b * size).max(skip))
        .map(|n| n as f32)
        .collect();
    let counts = on_device(counts, &rows.device());
    padded(rows.cast(DType::F32), skip, blocks * size - skip - len)
        .reshape([blocks, size, dim])
        .sum_dim(1)
        .reshape([blocks, dim])
        .div(counts.reshape([blocks, 1]))
}

/// Values as an f32 tensor.
pub(crate) fn on_device(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let len = values.len();
    Tensor::from_data(TensorData::new(values, [len]), (device, DType::F32))
}

/// `rows` with rows of zeros before and after.
pub(crate) fn padded(rows: Tensor<2>, before: usize, after: usize) -> Tensor<2> {
    let [_, dim] = rows.dims();
    let options = (&rows.device(), rows.dtype());
    let zeros = |n: usize| (n > 0).then(|| Tensor::<2>::zeros([n, dim], options));
    let (head, tail) = (zeros(before), zeros(after));
    let parts: Vec<_> = head.into_iter().chain([rows]).chain(tail).collect();
    Tensor::cat(parts, 0)
}
