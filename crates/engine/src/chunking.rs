//! Cutting a prompt into chunks.
//!
//! The cost of a token grows with what lies before it, so chunks of equal length take longer and longer.
//! On one device that changes nothing. Where stages work on different chunks at once, a stage waits for
//! the slowest, and a prompt of `n` chunks takes `(sum + (stages - 1) * longest)` of a stage's time: so equal
//! times are best. Every chunk costs something by itself (launches, products of few rows, the probe of a
//! selection, which looks at all keys), `c`; then `(W + n c) (1 + (stages - 1) / n)` is least at
//! `n = sqrt((stages - 1) W / c)`.

use serde::Serialize;
use sparse_accelerate_checkpoint::ModelConfig;

use crate::{
    error::EngineError,
    estimate::ATTENTION_RATE,
    memory::{matrices, sum},
};

/// Chunk lengths are multiples of this, but for the last: key blocks of a selection are not cut.
const GRAIN: usize = 128;

/// Cost of a chunk by itself, in costs of a token without attention: launches, and products of few rows.
struct ChunkCost {
    /// Tokens, whatever the prompt.
    fixed: f64,
    /// Share of the prompt's tokens.
    share: f64,
}

/// Cost of a dense chunk. This and the next are from 8 to 49 chunks of 8K to 128K tokens of Llama-3.1-8B on
/// two H200 (`benches/runs/2026-11-26-h200-two-devices`).
const DENSE_CHUNK: ChunkCost = ChunkCost {
    fixed: 100.0,
    share: 1.0 / 160.0,
};
/// Cost of a chunk whose heads choose their keys: their probe looks at all keys.
const SELECTING_CHUNK: ChunkCost = ChunkCost {
    fixed: 200.0,
    share: 1.0 / 64.0,
};

/// Lengths of the chunks of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Chunking {
    /// Chunks of this many tokens; the last has the rest.
    Fixed(usize),
    /// Chunks that take equal time.
    EqualTime(EqualTime),
}

/// Chunks of equal time; see [`EqualTime::sizes`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct EqualTime {
    /// Chunks to cut a prompt into; more where one would be longer than `longest`.
    pub chunks: usize,
    /// The longest chunk, tokens; the workspace is planned for it.
    pub longest: usize,
    /// Cost of attending to one key, in costs of a token without attention.
    pub growth: f64,
}

impl From<usize> for Chunking {
    fn from(tokens: usize) -> Self {
        Chunking::Fixed(tokens)
    }
}

impl Chunking {
    /// Chooses the number of chunks of equal time for `stages` stages; fixed chunks of `longest` tokens for one
    /// stage. The model computes `density` of attention's pairs, which its heads choose if it `selects`.
    pub fn for_stages(
        config: &ModelConfig,
        stages: usize,
        prompt: usize,
        longest: usize,
        density: f64,
        selects: bool,
    ) -> Self {
        if stages < 2 {
            return Chunking::Fixed(longest);
        }
        let growth = growth(config, density);
        let tokens = prompt as f64;
        let whole = tokens + growth * tokens * tokens / 2.0;
        let chunk = match selects {
            true => SELECTING_CHUNK,
            false => DENSE_CHUNK,
        };
        let each = chunk.fixed + chunk.share * tokens;
        let chunks = ((stages - 1) as f64 * whole / each).sqrt();
        Chunking::EqualTime(EqualTime {
            chunks: (chunks.round() as usize).max(1),
            longest,
            growth,
        })
    }

    /// Tokens of the longest possible chunk.
    pub fn longest(&self) -> usize {
        match self {
            Chunking::Fixed(tokens) => *tokens,
            Chunking::EqualTime(equal) => equal.longest,
        }
    }

    /// Gives the lengths of the chunks of `tokens` tokens that come after `before` others.
    ///
    /// # Errors
    /// [`EngineError::EmptyChunk`] for chunks of no tokens.
    pub fn sizes(&self, before: usize, tokens: usize) -> Result<Vec<usize>, EngineError> {
        if self.longest() == 0 {
            return Err(EngineError::EmptyChunk);
        }
        Ok(match self {
            Chunking::Fixed(size) => {
                let whole = std::iter::repeat_n(*size, tokens / size);
                let rest = (!tokens.is_multiple_of(*size)).then_some(tokens % size);
                whole.chain(rest).collect()
            }
            Chunking::EqualTime(equal) => equal.sizes(before, tokens),
        })
    }
}

impl EqualTime {
    /// Gives the lengths of chunks of equal cost. A token after `p` others costs `1 + growth * p`, so the first
    /// `x` cost `F(x) = x + growth * x^2 / 2`, and boundary `k` of `n` lies where `F` has grown by `k / n`.
    /// Boundaries are rounded to multiples of 128 tokens; a chunk longer than `longest` is cut again.
    pub fn sizes(&self, before: usize, tokens: usize) -> Vec<usize> {
        let growth = self.growth.max(1e-12);
        let cost = |x: f64| x + growth * x * x / 2.0;
        let inverse = |cost: f64| ((1.0 + 2.0 * growth * cost).sqrt() - 1.0) / growth;
        let (from, to) = (cost(before as f64), cost((before + tokens) as f64));
        let chunks = self.chunks.max(1);
        let mut sizes = Vec::with_capacity(chunks);
        let mut done = 0;
        for k in 1..=chunks {
            let share = k as f64 / chunks as f64;
            let at = inverse(from + share * (to - from)) - before as f64;
            let at = match k == chunks {
                true => tokens,
                false => ((at / GRAIN as f64).round() as usize * GRAIN).min(tokens),
            };
            let mut left = at.saturating_sub(done);
            done = done.max(at);
            // Cut evenly, on the grain where it allows one.
            let mut pieces = left.div_ceil(self.longest.max(1));
            while left > 0 {
                let even = left.div_ceil(pieces).next_multiple_of(GRAIN);
                let size = even.min(self.longest).min(left);
                sizes.push(size);
                left -= size;
                pieces = pieces.saturating_sub(1).max(1);
            }
        }
        sizes
    }
}

/// Cost of attention a key over that of the linear layers a token: `4 * heads * head_dim * density` FLOPs over
/// twice a layer's parameters.
fn growth(config: &ModelConfig, density: f64) -> f64 {
    let flops = 4.0 * (config.heads * config.head_dim) as f64 * density;
    flops / ATTENTION_RATE / (2.0 * sum(&matrices(config)) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROWTH: f64 = 3.75e-5;

    fn equal(chunks: usize, longest: usize) -> EqualTime {
        EqualTime {
            chunks,
            longest,
            growth: GROWTH,
        }
    }

    #[test]
    fn fixed_chunks_leave_a_rest() {
        let sizes = |n| Chunking::Fixed(4).sizes(0, n).expect("sizes");
        assert_eq!(sizes(9), [4, 4, 1]);
        assert_eq!(sizes(8), [4, 4]);
        assert_eq!(sizes(3), [3]);
        assert!(matches!(
            Chunking::Fixed(0).sizes(0, 3),
            Err(EngineError::EmptyChunk)
        ));
    }

    #[test]
    fn equal_times_are_equal_and_cover_the_prompt() {
        for (before, tokens) in [(0, 131_072), (0, 32_768), (65_536, 65_536), (5, 100_001)] {
            let sizes = equal(16, 1 << 20).sizes(before, tokens);
            assert_eq!(sizes.iter().sum::<usize>(), tokens);
            assert_eq!(sizes.len(), 16);
            let mut at = before as f64;
            let costs: Vec<f64> = sizes
                .iter()
                .map(|&size| {
                    let middle = at + size as f64 / 2.0;
                    at += size as f64;
                    size as f64 * (1.0 + GROWTH * middle)
                })
                .collect();
            let mean = costs.iter().sum::<f64>() / 16.0;
            let worst = costs.iter().copied().fold(0.0, f64::max);
            assert!(worst < 1.1 * mean, "{before} {tokens}: {costs:?}");
            assert!(sizes[0] > sizes[15], "{sizes:?}");
        }
    }

    #[test]
    fn longer_prompts_are_cut_into_more_chunks() {
        let config = crate::memory::tests::llama();
        let chunks = |stages, prompt, density, selects| {
            let cut = Chunking::for_stages(&config, stages, prompt, 8192, density, selects);
            cut.sizes(0, prompt).expect("sizes").len()
        };
        assert_eq!(chunks(1, 32_768, 1.0, false), 4);
        let dense = [8192, 32_768, 131_072].map(|prompt| chunks(2, prompt, 1.0, false));
        assert!(
            dense[0] >= 6 && dense[0] < dense[1] && dense[1] < dense[2] && dense[2] < 40,
            "{dense:?}"
        );
        assert!(chunks(4, 32_768, 1.0, false) > dense[1]);
        // A selection looks at all keys for every chunk.
        assert!(chunks(2, 32_768, 0.187, true) < dense[1]);
        assert!((1..64).all(|prompt| chunks(2, prompt, 1.0, false) >= 1));
    }

    #[test]
    fn no_chunk_is_longer_than_the_workspace_or_empty() {
        for tokens in [1, 127, 128, 129, 1000, 8192, 40_000] {
            for (chunks, longest) in [(1, 512), (7, 512), (64, 512), (3, 100), (5, 1 << 20)] {
                let sizes = equal(chunks, longest).sizes(0, tokens);
                assert_eq!(sizes.iter().sum::<usize>(), tokens, "{tokens} {chunks}");
                assert!(
                    sizes.iter().all(|&size| size > 0 && size <= longest),
                    "{tokens} by {chunks} of {longest}: {sizes:?}"
                );
            }
        }
    }
}
