//! Antidiagonal block scores of XAttention (arXiv 2503.16428), per query head.
//!
//! With stride `S`, row group `m` holds rows `mS..mS+S` and key group `n` keys `nS..nS+S`:
//!
//!   Z[m, n] = 1 / (S sqrt(d)) sum_k q[mS + S - 1 - k] . k[nS + k],  n <= m
//!
//! `A = softmax(Z)`; a block's score is the sum of `A` over its cells. The first block and the diagonal
//! are kept, then blocks by score while what is kept already sums up to less than `threshold` of the
//! row. In a group that the sequence's end cuts short, `Z` is the mean over the pairs that are there (the
//! published program pads with zeros).

use burn::tensor::{DType, Tensor, activation::softmax};

use sparse_accelerate::{AttentionError, index::TileIndex};

use crate::{
    BLOCK,
    cut::{self, KeptBlocks},
    problem::{Problem, on_device, padded},
    scores::{self, MASKED, MOST_SCORES},
};

pub(crate) fn index(
    problem: &Problem<'_>,
    stride: usize,
    threshold: f64,
) -> Result<TileIndex, AttentionError> {
    problem.on_grid()?;
    let mut kept = Vec::new();
    for (sequence, span) in problem.spans.iter().enumerate() {
        let first = span.offset() / BLOCK;
        let mut heads = Vec::new();
        for kv_head in 0..problem.kv_heads {
            let groups = Groups::new(problem, sequence, kv_head, stride);
            for head in kv_head * problem.group()..(kv_head + 1) * problem.group() {
                let scores = groups.block_scores(problem, head)?;
                let blocks = span.kv_len.div_ceil(BLOCK);
                let rows = scores.chunks_exact(blocks).enumerate();
                heads.push(
                    rows.map(|(i, row)| keep(&row[..=first + i], threshold))
                        .collect(),
                );
            }
        }
        kept.push(heads);
    }
    let blocks = KeptBlocks {
        query_block: BLOCK,
        key_block: BLOCK,
        kept,
    };
    blocks.index(problem)
}

/// The blocks kept of a row of scores that ends at the diagonal.
fn keep(scores: &[f32], threshold: f64) -> Vec<usize> {
    let diagonal = scores.len() - 1;
    cut::cover(scores, threshold, |b| b == 0 || b == diagonal)
}

/// Keys of one KV head in groups.
struct Groups {
    sequence: usize,
    stride: usize,
    /// `[groups, stride * d]`, zeros past the last key.
    keys: Tensor<2>,
    /// Tokens of the last group.
    tail: usize,
}

impl Groups {
    fn new(problem: &Problem<'_>, sequence: usize, kv_head: usize, stride: usize) -> Self {
        let len = problem.spans[sequence].kv_len;
        let groups = len.div_ceil(stride);
        let keys = padded(problem.key(sequence, kv_head), 0, groups * stride - len);
        Self {
            sequence,
            stride,
            keys: keys.reshape([groups, stride * problem.head_dim]),
            tail: len - (groups - 1) * stride,
        }
    }

    /// Scores `[query blocks, key blocks]` of one query head; blocks past the diagonal are 0.
    fn block_scores(&self, problem: &Problem<'_>, head: usize) -> Result<Vec<f32>, AttentionError> {
        let span = problem.spans[self.sequence];
        let [groups, width] = self.keys.dims();
        let blocks = span.kv_len.div_ceil(BLOCK);
        let per_block = BLOCK / self.stride;
        let at_once = (MOST_SCORES / (groups * BLOCK / self.stride)).max(1);
        let first = span.offset() / BLOCK;
        let mut out = Vec::new();
        for from in (first..blocks).step_by(at_once) {
            let to = (from + at_once).min(blocks);
            // Rows of these blocks, as positions, and the padding to whole groups.
            let rows = (from * BLOCK).max(span.offset())..(to * BLOCK).min(span.kv_len);
            let end = rows.end.next_multiple_of(self.stride);
            let (m0, m1) = (rows.start / self.stride, end / self.stride);
            let local = rows.start - span.offset()..rows.end - span.offset();
            let count = local.len();
            let query = problem.query(self.sequence, head..head + 1, local);
            let query = padded(query.reshape([count, problem.head_dim]), 0, end - rows.end)
                .reshape([m1 - m0, self.stride, problem.head_dim])
                .flip([1])
                .reshape([m1 - m0, width]);
            let attention = self.softmax(query, m0, m1, problem.scale());
            // To whole blocks of groups on both axes, then sums over their cells.
            let (above, below) = (m0 - from * per_block, to * per_block - m1);
            let right = to * per_block - m1;
            let cells = padded(attention, above, below);
            let cells = padded(cells.transpose(), 0, right).transpose();
            let sums = cells
                .reshape([to - from, per_block, to, per_block])
                .sum_dim(1)
                .sum_dim(3)
                .reshape([to - from, to]);
            for row in scores::read(sums)?.chunks_exact(to) {
                out.extend_from_slice(row);
                out.resize(out.len() + blocks - to, 0.0);
            }
        }
        Ok(out)
    }

    /// Softmax of the row groups `m0..m1` over the key groups `0..m1`, `[m1 - m0, m1]` in f32.
    fn softmax(&self, query: Tensor<2>, m0: usize, m1: usize, scale: f64) -> Tensor<2> {
        let [groups, width] = self.keys.dims();
        let (rows, device) = (m1 - m0, self.keys.device());
        let keys = self.keys.clone().slice([0..m1, 0..width]);
        let mut logits = scores::products(query, keys, scale / self.stride as f64);
        if m1 == groups && self.tail < self.stride {
            // The group cut short is a last row and a last column: sums become means of what is there.
            let (s, tail) = (self.stride as f32, self.tail as f32);
            let factor = |n: usize| {
                let mut values = vec![1.0; n];
                values[n - 1] = s / tail;
                on_device(values, &device)
            };
            let corner = logits.clone().slice([rows - 1..rows, m1 - 1..m1]);
            logits = logits * factor(rows).reshape([rows, 1]) * factor(m1).reshape([1, m1]);
            let pairs = 2.0 * tail - s;
            let corner = match pairs > 0.0 {
                true => corner.mul_scalar(s / pairs),
                false => Tensor::full([1, 1], MASKED, (&device, DType::F32)),
            };
            logits = logits.slice_assign([rows - 1..rows, m1 - 1..m1], corner);
        }
        let row = scores::positions(m0..m1, &device).reshape([rows, 1]);
        let column = scores::positions(0..m1, &device).reshape([1, m1]);
        let future = column.expand([rows, m1]).greater(row.expand([rows, m1]));
        softmax(logits.mask_fill(future, MASKED), 1)
    }
}
