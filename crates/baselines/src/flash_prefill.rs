//! Energies against mean keys: FlashPrefill V1 (arXiv 2603.06199) and V2 (arXiv 2608.19758).
//!
//! With the mean `kbar_J` of K over the real tokens of block `J`, a tile of rows has the energy
//!
//!   E_J = sum_r exp(z[r, J] - M),  z[r, J] = q_r . kbar_J / sqrt(d),  M = max_{r, J} z[r, J]
//!
//! over its rows at or after the block's last token, and keeps `J` iff `E_J >= alpha * max_J E_J`. The
//! first two blocks are kept; so are the diagonal and three (V1) or four (V2) blocks before it. The
//! last `last_blocks` blocks of rows of the prompt, two as published, see everything.
//!
//! V1 has tiles of 128 rows of one query head. V2 has tiles of 128 rows that all query heads of a KV head
//! share; here they are [`QUERY_TILE`] tokens of every head of the group, which is the same for groups
//! of two.

use std::ops::Range;

use burn::tensor::{Bool, DType, Int, Tensor, TensorData};

use sparse_accelerate::{
    AttentionError, Span,
    index::{QUERY_TILE, TileIndex},
};

use crate::{
    BLOCK,
    cut::KeptBlocks,
    problem::{Problem, padded},
    scores::{self, MASKED, MOST_SCORES},
};

const SINK_BLOCKS: usize = 2;

/// V1: one choice per query head.
pub(crate) fn per_query_head(
    problem: &Problem<'_>,
    alpha: f64,
    last_blocks: usize,
) -> Result<TileIndex, AttentionError> {
    let rule = Rule {
        alpha,
        last_blocks,
        window: 3,
        tile: BLOCK,
    };
    select(problem, &rule, 1)
}

/// V2: one choice per KV head.
pub(crate) fn per_kv_head(
    problem: &Problem<'_>,
    alpha: f64,
    last_blocks: usize,
) -> Result<TileIndex, AttentionError> {
    let rule = Rule {
        alpha,
        last_blocks,
        window: 4,
        tile: QUERY_TILE,
    };
    select(problem, &rule, problem.group())
}

struct Rule {
    alpha: f64,
    /// Blocks of rows at the prompt's end that see everything.
    last_blocks: usize,
    /// Blocks before the diagonal that are kept.
    window: usize,
    /// Tokens of a tile.
    tile: usize,
}

/// `packed` query heads share a choice.
fn select(problem: &Problem<'_>, rule: &Rule, packed: usize) -> Result<TileIndex, AttentionError> {
    problem.on_grid()?;
    let mut kept = Vec::new();
    for (sequence, span) in problem.spans.iter().enumerate() {
        let mut heads = Vec::new();
        for kv_head in 0..problem.kv_heads {
            let pooled = problem.pooled_key(sequence, kv_head);
            let group = kv_head * problem.group()..(kv_head + 1) * problem.group();
            for first in group.step_by(packed) {
                let heads_of = first..first + packed;
                let energies = energies(problem, sequence, heads_of, &pooled, rule.tile)?;
                heads.push(rule.keep(span, &energies));
            }
        }
        kept.push(heads);
    }
    let blocks = KeptBlocks {
        query_block: rule.tile,
        key_block: BLOCK,
        kept,
    };
    blocks.index(problem)
}

impl Rule {
    /// The blocks kept by every tile of a sequence, from energies `[tiles, blocks]`.
    fn keep(&self, span: &Span, energies: &[f32]) -> Vec<Vec<usize>> {
        let blocks = span.kv_len.div_ceil(BLOCK);
        let dense_from = span
            .prompt_len
            .div_ceil(BLOCK)
            .saturating_sub(self.last_blocks)
            * BLOCK;
        let origin = span.offset() / self.tile * self.tile;
        let row = |(i, row): (usize, &[f32])| {
            let first = (origin + i * self.tile).max(span.offset());
            let last = (origin + (i + 1) * self.tile).min(span.kv_len) - 1;
            let diagonal = first / BLOCK;
            if first >= dense_from {
                return (0..=diagonal).collect();
            }
            let scored = |b: usize| ((b + 1) * BLOCK).min(span.kv_len) <= last + 1;
            let energy = |b: usize| if scored(b) { f64::from(row[b]) } else { 0.0 };
            let largest = (0..=diagonal).map(energy).fold(0.0, f64::max);
            let forced = |b: usize| b < SINK_BLOCKS || b + self.window >= diagonal;
            let strong = |b: usize| energy(b) > 0.0 && energy(b) >= self.alpha * largest;
            (0..=diagonal).filter(|&b| forced(b) || strong(b)).collect()
        };
        energies.chunks_exact(blocks).enumerate().map(row).collect()
    }
}

/// Energies `[tiles, blocks]` of a tile's rows over all of `heads`; meaningless where no row scores.
fn energies(
    problem: &Problem<'_>,
    sequence: usize,
    heads: Range<usize>,
    pooled: &Tensor<2>,
    tile: usize,
) -> Result<Vec<f32>, AttentionError> {
    let span = problem.spans[sequence];
    let [blocks, dim] = pooled.dims();
    let packed = heads.len();
    let (first, end) = (span.offset() / tile, span.kv_len.div_ceil(tile));
    let at_once = (MOST_SCORES / (packed * tile * blocks)).max(1);
    let mut out = Vec::new();
    for from in (first..end).step_by(at_once) {
        let to = (from + at_once).min(end);
        let rows = (from * tile).max(span.offset())..(to * tile).min(span.kv_len);
        let reached = rows.end.div_ceil(BLOCK);
        let (above, below) = (rows.start - from * tile, to * tile - rows.end);
        let local = rows.start - span.offset()..rows.end - span.offset();
        let query = heads.clone().map(|head| {
            let part = problem.query(sequence, head..head + 1, local.clone());
            padded(part.reshape([local.len(), dim]), above, below)
        });
        let query = Tensor::cat(query.collect(), 0);
        let keys = pooled.clone().slice([0..reached, 0..dim]);
        let logits = scores::products(query.clone(), keys.cast(query.dtype()), problem.scale());
        let tiles = to - from;
        let unscored = unscored(&span, rows, [above, below], reached, &logits);
        let shape = [packed, tiles, tile, reached];
        let unscored = unscored.reshape([1, tiles, tile, reached]).expand(shape);
        let logits = logits.reshape(shape).mask_fill(unscored, MASKED);
        let largest = logits.clone().max_dim(3).max_dim(2).max_dim(0);
        let energy = (logits - largest).exp().sum_dim(2).sum_dim(0);
        let energy = scores::read(energy.reshape([tiles, reached]))?;
        for row in energy.chunks_exact(reached) {
            out.extend_from_slice(row);
            out.resize(out.len() + blocks - reached, 0.0);
        }
    }
    Ok(out)
}

/// Mask of the rows that stand before a block's last token or are padding: `[rows, blocks]`.
fn unscored(
    span: &Span,
    rows: Range<usize>,
    [above, below]: [usize; 2],
    blocks: usize,
    like: &Tensor<2>,
) -> Tensor<2, Bool> {
    let int = |values: Vec<i32>| {
        let len = values.len();
        let options = (&like.device(), DType::I32);
        Tensor::<1, Int>::from_data(TensorData::new(values, [len]), options)
    };
    let padding = |n| std::iter::repeat_n(-1, n);
    let positions = rows.map(|p| p as i32);
    let positions: Vec<i32> = padding(above)
        .chain(positions)
        .chain(padding(below))
        .collect();
    let last = (0..blocks).map(|b| (((b + 1) * BLOCK).min(span.kv_len) - 1) as i32);
    let shape = [positions.len(), blocks];
    let row = int(positions).reshape([shape[0], 1]).expand(shape);
    let last = int(last.collect()).reshape([1, blocks]).expand(shape);
    row.lower(last)
}
