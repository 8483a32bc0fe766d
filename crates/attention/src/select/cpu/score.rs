//! Shares of key blocks from pooled keys, per query block.

use pulp::Arch;
use rayon::prelude::*;

use super::{Pooled, View};
use sparse_accelerate_contract::{BLOCK, Rules, Sequence, Shape, Visible};
use sparse_accelerate_cpu::{FlexFloat, product, softmax};

/// Rows of a query block that are sampled: one in so many, from half of it on.
const STRIDE: usize = 8;

/// Share of every candidate key block, estimated per query head and query block from pooled keys: for
/// each band `v`, the softmax over candidates of
/// `scale * sum_d w_v[d] q[d] mean[d]`, averaged over the sampled rows; of the bands the largest. With
/// `gauss` the first band has the second-order term `scale^2 / 2 * sum_d q[d]^2 variance[d]` on top.
/// (Every candidate has 128 keys, so their `ln 128` cancels.)
///
/// Candidates lie wholly before the query block and not wholly inside what the head's rule keeps for
/// its first row; others get 0, as do query blocks past the end of a sequence. Bands: Prism
/// (arXiv 2602.08426), here as weights of dimensions.
///
/// Under a window a row's candidates begin with the block that holds the first key it sees; of `n` keys of
/// it that the row sees, `ln (n / 128)` is added. There are none if the rule's own window is no shorter.
///
/// # Shapes
/// - `query`: `[B, Hq, N, d]`; `pooled`: `[B, Hk, blocks, 3, d]`
/// - `spans`: `[B, 4]`; `rules`: `[Hi, 8]`; `bands`: `[V, d]`, at least one
/// - `scores`: `[B, Hq, T, C]`, all written
#[allow(clippy::too_many_arguments)]
pub fn score<E: FlexFloat>(
    shape: &Shape,
    query: View<'_, E>,
    pooled: Pooled<'_>,
    spans: &[u32],
    rules: &[u32],
    bands: &[f32],
    gauss: bool,
    scores: &mut [f32],
) {
    let (blocks, query_blocks) = (shape.key_blocks(), shape.query_blocks());
    assert_eq!(
        scores.len(),
        shape.batch * shape.heads * query_blocks * blocks
    );
    assert!(!bands.is_empty() && bands.len().is_multiple_of(shape.head_dim));
    let problem = Problem {
        shape,
        query,
        pooled,
        bands,
        gauss,
        arch: Arch::new(),
    };
    let items = scores.par_chunks_exact_mut(blocks).enumerate();
    items.for_each_init(Scratch::default, |scratch, (item, scores)| {
        scores.fill(0.0);
        let (flat, block) = (item / query_blocks, item % query_blocks);
        let (b, head) = (flat / shape.heads, flat % shape.heads);
        let sequence = Sequence::of(spans, b);
        if block * BLOCK < sequence.query_len {
            let rule = Rules::of(rules, head / shape.heads_per_index());
            problem.run(scratch, (b, head), block, sequence, rule, scores);
        }
    });
}

/// Buffers of one thread, reused from item to item.
#[derive(Default)]
struct Scratch {
    query: Vec<f32>,
    weighted: Vec<f32>,
    logits: Vec<f32>,
    mean: Vec<f32>,
    /// First key that each sampled row sees.
    seen: Vec<usize>,
}

struct Problem<'a, E> {
    shape: &'a Shape,
    query: View<'a, E>,
    pooled: Pooled<'a>,
    bands: &'a [f32],
    gauss: bool,
    arch: Arch,
}

impl<E: FlexFloat> Problem<'_, E> {
    fn run(
        &self,
        scratch: &mut Scratch,
        (b, head): (usize, usize),
        block: usize,
        sequence: Sequence,
        rule: Rules,
        scores: &mut [f32],
    ) {
        let first = block * BLOCK;
        let visible = self.shape.visible;
        let candidates = candidates(sequence.offset() + first, rule, visible);
        if candidates.is_empty() {
            return;
        }
        let d = self.shape.head_dim;
        let end = (first + BLOCK).min(sequence.query_len);
        // A block too short for that has its first row sampled.
        let sampled = (first + STRIDE / 2..end).step_by(STRIDE);
        let short = (first + STRIDE / 2 >= end).then_some(first);
        scratch.query.clear();
        scratch.seen.clear();
        for row in sampled.chain(short) {
            scratch.seen.push(visible.first(sequence.offset() + row));
            let row = self.query.row(b, head, row, d);
            scratch
                .query
                .extend(row.iter().map(|x| x.widen() * self.shape.scale));
        }
        let rows = scratch.query.len() / d;
        let kv_head = b * self.shape.kv_heads + head / self.shape.heads_per_kv();
        let pooled = &self.pooled.head(kv_head, d)[candidates.start * 3 * d..];
        let count = candidates.len();
        scratch.logits.resize(rows * count, 0.0);
        for (v, band) in self.bands.chunks_exact(d).enumerate() {
            weigh(&scratch.query, d, &mut scratch.weighted, |i, q| q * band[i]);
            let (weighted, logits) = (&scratch.weighted, &mut scratch.logits);
            product(
                [rows, count, d],
                logits,
                false,
                (weighted, [d, 1]),
                (pooled, [1, 3 * d]),
            );
            if self.gauss && v == 0 {
                weigh(&scratch.query, d, &mut scratch.weighted, |_, q| 0.5 * q * q);
                let (weighted, variance) = (&scratch.weighted, &pooled[d..]);
                product(
                    [rows, count, d],
                    logits,
                    true,
                    (weighted, [d, 1]),
                    (variance, [1, 3 * d]),
                );
            }
            scratch.mean.clear();
            scratch.mean.resize(count, 0.0);
            for (row, &seen) in logits.chunks_exact_mut(count).zip(&scratch.seen) {
                // Blocks of which the row sees nothing, and one of which it may see a part.
                let hidden = (seen / BLOCK).saturating_sub(candidates.start).min(count);
                let row = &mut row[hidden..];
                if seen / BLOCK == candidates.start + hidden && !seen.is_multiple_of(BLOCK) {
                    let part = (BLOCK - seen % BLOCK) as f32 / BLOCK as f32;
                    row.iter_mut().take(1).for_each(|logit| *logit += part.ln());
                }
                let (_, sum) = softmax::row(self.arch, row, softmax::UNSEEN);
                let inverse = 1.0 / (sum * rows as f32);
                for (mean, &x) in scratch.mean[hidden..].iter_mut().zip(&*row) {
                    *mean += x * inverse;
                }
            }
            for (score, &mean) in scores[candidates.clone()].iter_mut().zip(&scratch.mean) {
                *score = score.max(mean);
            }
        }
    }
}

/// Key blocks wholly before position `first`, of which the row there sees a key, and not wholly inside the
/// sinks or the window of the rule.
fn candidates(first: usize, rule: Rules, visible: Visible) -> std::ops::Range<usize> {
    let (sink, window) = rule.local();
    let (seen, outside) = (visible.first(first), (first + 1).saturating_sub(window));
    if seen >= outside {
        return 0..0;
    }
    sink.max(seen) / BLOCK..outside.div_ceil(BLOCK).min(first / BLOCK)
}

fn weigh(query: &[f32], d: usize, to: &mut Vec<f32>, weight: impl Fn(usize, f32) -> f32) {
    to.clear();
    for row in query.chunks_exact(d) {
        to.extend(row.iter().enumerate().map(|(i, &q)| weight(i, q)));
    }
}

#[cfg(test)]
mod tests;
