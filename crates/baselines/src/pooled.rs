//! Key blocks by the mass of pooled rows and keys, for the query heads of a KV head together or each alone.
//!
//! Of every query tile of 64 rows, cut into `parts` equal parts of rows, and of every key block of 64 keys, cut
//! into `means` equal parts of keys,
//!
//! ```text
//! z(p, s) = scale qmean_p . kmean_s     mass(J) = sum_p n_p / n sum_(s in J) softmax_s z(p, s)
//! ```
//!
//! over the parts `s` whose first key the last of the `n_p` rows of `p` sees. The first keys and the window are
//! kept, then blocks by mass until what is kept reaches the share `mass`. With 64 parts and 64 means nothing is
//! pooled: what is chosen is the ideal, the fewest blocks that hold that share of the attention itself.

use burn::tensor::{Tensor, activation::softmax};

use sparse_accelerate::{
    AttentionError,
    index::{QUERY_TILE, TileIndex},
};

use crate::{
    cut::{self, KeptBlocks},
    problem::{Problem, block_means, on_device, padded},
    scores::{self, MASKED},
};

/// Largest masses held at once, in elements (256 MiB in f32).
const MOST: usize = 1 << 26;

/// Parameters, as [`Baseline::Pooled`](crate::Baseline::Pooled) has them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pooled {
    pub(crate) parts: usize,
    pub(crate) means: usize,
    pub(crate) mass: f64,
    pub(crate) sink: usize,
    pub(crate) window: usize,
    pub(crate) together: bool,
}

impl Pooled {
    pub(crate) fn index(&self, problem: &Problem<'_>) -> Result<TileIndex, AttentionError> {
        problem.on_grid()?;
        let mut kept = Vec::new();
        for (sequence, span) in problem.spans.iter().enumerate() {
            let mut heads = Vec::new();
            for kv_head in 0..problem.kv_heads {
                let size = QUERY_TILE / self.means;
                let keys = problem.key(sequence, kv_head);
                let keys = block_means(keys, 0, span.kv_len, size);
                let tiles = self.masses(problem, sequence, kv_head, &keys)?;
                let choosing = match self.together {
                    true => 1,
                    false => problem.group(),
                };
                for head in 0..choosing {
                    let of_tile = |(tile, masses): (usize, &Vec<Vec<f32>>)| {
                        self.keep(&masses[head], span.offset() + tile * QUERY_TILE)
                    };
                    heads.push(tiles.iter().enumerate().map(of_tile).collect());
                }
            }
            kept.push(heads);
        }
        let blocks = KeptBlocks {
            query_block: QUERY_TILE,
            key_block: QUERY_TILE,
            kept,
        };
        blocks.index(problem)
    }

    /// Masses of the key blocks of every tile, of all heads that choose: `[tile][head][block]`.
    fn masses(
        &self,
        problem: &Problem<'_>,
        sequence: usize,
        kv_head: usize,
        keys: &Tensor<2>,
    ) -> Result<Vec<Vec<Vec<f32>>>, AttentionError> {
        let (span, group) = (problem.spans[sequence], problem.group());
        let [_, dim] = keys.dims();
        let tiles = span.query_len.div_ceil(QUERY_TILE);
        let mut all = Vec::new();
        let mut tile = 0;
        while tile < tiles {
            let blocks = |end: usize| (span.offset() + end * QUERY_TILE).div_ceil(QUERY_TILE);
            let elements = |n: usize| n * group * self.parts * blocks(tile + n) * self.means;
            let mut count = 1;
            while tile + count < tiles && elements(count + 1) <= MOST {
                count += 1;
            }
            let rows = tile * QUERY_TILE..((tile + count) * QUERY_TILE).min(span.query_len);
            let (first, blocks) = (span.offset() + rows.start, blocks(tile + count));
            let heads = kv_head * group..(kv_head + 1) * group;
            let size = QUERY_TILE / self.parts;
            let mut queries = Vec::new();
            for head in heads {
                let query = problem.query(sequence, head..head + 1, rows.clone());
                let query = query.reshape([rows.len(), dim]);
                let query = block_means(query, 0, rows.len(), size);
                let whole = count * self.parts;
                let [parts, _] = query.dims();
                queries.push(padded(query, 0, whole - parts));
            }
            let wide = blocks * self.means;
            let keys = keys.clone();
            let [there, _] = keys.dims();
            let keys = padded(
                keys.slice([0..wide.min(there), 0..dim]),
                0,
                wide.saturating_sub(there),
            );
            let logits = scores::products(Tensor::cat(queries, 0), keys, problem.scale());
            let device = logits.device();
            // Of a part its last row, of keys the first of a part: as positions.
            let counts: Vec<f32> = (0..count * self.parts)
                .map(|p| size.min(rows.len().saturating_sub(p * size)) as f32)
                .collect();
            let last: Vec<f32> = counts
                .iter()
                .enumerate()
                .map(|(p, n)| (first + p * size) as f32 + n - 1.0)
                .collect();
            let begin: Vec<f32> = (0..wide)
                .map(|s| (s * (QUERY_TILE / self.means)) as f32)
                .collect();
            let per_head = count * self.parts;
            let last = on_device(last, &device).reshape([per_head, 1]);
            let begin = on_device(begin, &device).reshape([1, wide]);
            let hidden = begin
                .expand([per_head, wide])
                .greater(last.expand([per_head, wide]))
                .reshape([1, per_head, wide])
                .expand([group, per_head, wide]);
            let logits = logits
                .reshape([group, per_head, wide])
                .mask_fill(hidden, MASKED);
            let weights = on_device(counts, &device).reshape([1, per_head, 1]);
            let mass = softmax(logits, 2) * weights;
            let mass = mass
                .reshape([group * count, self.parts, wide])
                .sum_dim(1)
                .reshape([group, count, blocks, self.means])
                .sum_dim(3)
                .reshape([group, count, blocks]);
            let (mass, choosing) = match self.together {
                true => (mass.sum_dim(0), 1),
                false => (mass, group),
            };
            let mass = scores::read(mass)?;
            for i in 0..count {
                let own = span.offset() / QUERY_TILE + tile + i + 1;
                let of = |h: usize| mass[(h * count + i) * blocks..][..own].to_vec();
                all.push((0..choosing).map(of).collect());
            }
            tile += count;
        }
        Ok(all)
    }

    /// The blocks kept of those up to the tile's own, the last.
    fn keep(&self, masses: &[f32], first: usize) -> Vec<usize> {
        let sinks = self.sink.div_ceil(QUERY_TILE);
        let local = (first + 1).saturating_sub(self.window) / QUERY_TILE;
        cut::cover(masses, self.mass, |b| b < sinks || b >= local)
    }
}
