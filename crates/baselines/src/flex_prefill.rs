//! FlexPrefill (arXiv 2502.20766, repository at May 2025), per query head.
//!
//! `A` is the attention of the chunk's last 128 rows. As many block columns and block diagonals are kept
//! as the number of tokens that cover `gamma` of its column and diagonal means, divided by 128, plus one.
//! Where the pooled scores of those rows agree with `A` (square root of the Jensen-Shannon divergence
//! below `tau`) the head is query-aware: columns and diagonals fall to the least budget and the largest
//! entries of the pooled block attention are kept, up to `gamma` of all its rows.
//!
//! Block diagonal `e` holds the offsets `128 e .. 128 e + 128`; for a row block `r` it is key block
//! `r - e`. A sequence of at most two blocks or the least budget is kept whole.

use burn::tensor::DType;

use sparse_accelerate::{AttentionError, index::TileIndex};

use crate::{
    BLOCK,
    cut::{self, KeptBlocks},
    problem::Problem,
    scores::{self, Sums},
};

const PROBE_ROWS: usize = 128;

pub(crate) fn index(
    problem: &Problem<'_>,
    gamma: f64,
    tau: f64,
    min_budget: usize,
) -> Result<TileIndex, AttentionError> {
    problem.on_grid()?;
    let fewest = min_budget.div_ceil(BLOCK);
    let mut kept = Vec::new();
    for (sequence, span) in problem.spans.iter().enumerate() {
        let (first, blocks) = (span.offset() / BLOCK, span.kv_len.div_ceil(BLOCK));
        if span.kv_len <= BLOCK * fewest.max(2) {
            let all: Vec<Vec<usize>> = (first..blocks).map(|r| (0..=r).collect()).collect();
            kept.push(vec![all; problem.heads]);
            continue;
        }
        let mut heads = Vec::new();
        for kv_head in 0..problem.kv_heads {
            let sums = scores::probe(problem, sequence, kv_head, PROBE_ROWS)?;
            for (i, sums) in sums.iter().enumerate() {
                let pooled = Pooled {
                    problem,
                    sequence,
                    kv_head,
                    head: kv_head * problem.group() + i,
                };
                heads.push(choose(sums, &pooled, gamma, tau, fewest)?);
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

/// The key blocks of every row block of one head.
fn choose(
    sums: &Sums,
    pooled: &Pooled<'_>,
    gamma: f64,
    tau: f64,
    fewest: usize,
) -> Result<Vec<Vec<usize>>, AttentionError> {
    let span = pooled.problem.spans[pooled.sequence];
    let (first, blocks) = (span.offset() / BLOCK, span.kv_len.div_ceil(BLOCK));
    let mass = gamma * sums.rows as f64;
    let count = |sums: &[f32]| {
        (cut::to_cover(sums, mass) / BLOCK + 1)
            .max(fewest)
            .min(blocks)
    };
    let mut counts = [count(&sums.columns), count(&sums.diagonals)];
    let mut columns = block_sums(&sums.columns);
    let mut diagonals = block_sums(&sums.diagonals);

    let shares: Vec<f64> = columns
        .iter()
        .map(|&c| f64::from(c) / sums.rows as f64)
        .collect();
    let query_aware = jensen_shannon(&pooled.last_rows(sums.rows)?, &shares).sqrt() < tau;
    let mut kept: Vec<Vec<usize>> = vec![Vec::new(); blocks - first];
    if query_aware {
        counts = [fewest.min(blocks); 2];
        let attention = pooled.attention()?;
        let most = gamma * kept.len() as f64;
        let mut sum = 0.0;
        for entry in cut::descending(&attention) {
            sum += f64::from(attention[entry]);
            if sum > most {
                break;
            }
            if entry % blocks <= first + entry / blocks {
                kept[entry / blocks].push(entry % blocks);
            }
        }
    }
    columns[0] = f32::INFINITY;
    diagonals[0] = f32::INFINITY;
    let columns = cut::top(&columns, counts[0]);
    let diagonals = cut::top(&diagonals, counts[1]);
    for (i, kept) in kept.iter_mut().enumerate() {
        let row = first + i;
        kept.extend(columns.iter().filter(|&&c| c <= row));
        kept.extend(diagonals.iter().filter_map(|&e| row.checked_sub(e)));
        kept.sort_unstable();
        kept.dedup();
    }
    Ok(kept)
}

fn block_sums(values: &[f32]) -> Vec<f32> {
    let sum = |block: &[f32]| block.iter().map(|&v| f64::from(v)).sum::<f64>() as f32;
    values.chunks(BLOCK).map(sum).collect()
}

/// Jensen-Shannon divergence in nats; a term with a zero is zero.
fn jensen_shannon(p: &[f64], q: &[f64]) -> f64 {
    let term = |a: f64, m: f64| if a > 0.0 { a * (a / m).ln() } else { 0.0 };
    let pairs = p.iter().zip(q);
    let sum: f64 = pairs
        .map(|(&p, &q)| term(p, (p + q) / 2.0) + term(q, (p + q) / 2.0))
        .sum();
    (sum / 2.0).max(0.0)
}

/// Attention between means of blocks.
struct Pooled<'a> {
    problem: &'a Problem<'a>,
    sequence: usize,
    kv_head: usize,
    head: usize,
}

impl Pooled<'_> {
    /// Of the mean of the last `rows`, over all blocks.
    fn last_rows(&self, rows: usize) -> Result<Vec<f64>, AttentionError> {
        let problem = self.problem;
        let len = problem.spans[self.sequence].query_len;
        let query = problem.query(self.sequence, self.head..self.head + 1, len - rows..len);
        let mean = query
            .cast(DType::F32)
            .mean_dim(1)
            .reshape([1, problem.head_dim]);
        let keys = problem.pooled_key(self.sequence, self.kv_head);
        let logits = scores::read(scores::products(mean, keys, problem.scale()))?;
        Ok(softmax(&logits))
    }

    /// Of the mean of every row block over its causal blocks, `[row blocks, blocks]`, zeros past them.
    fn attention(&self) -> Result<Vec<f32>, AttentionError> {
        let problem = self.problem;
        let first = problem.spans[self.sequence].offset() / BLOCK;
        let query = problem.pooled_query(self.sequence, self.head);
        let keys = problem.pooled_key(self.sequence, self.kv_head);
        let [blocks, _] = keys.dims();
        let mut logits = scores::read(scores::products(query, keys, problem.scale()))?;
        for (i, row) in logits.chunks_exact_mut(blocks).enumerate() {
            let (causal, future) = row.split_at_mut(first + i + 1);
            let weights = softmax(causal);
            for (to, weight) in causal.iter_mut().zip(weights) {
                *to = weight as f32;
            }
            future.fill(0.0);
        }
        Ok(logits)
    }
}

fn softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = logits
        .iter()
        .map(|&z| f64::from(z - largest).exp())
        .collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|w| w / total).collect()
}
