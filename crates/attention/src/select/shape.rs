//! What is selected over: shapes, sequences, probe rows.

use super::{BLOCK, GRANULE, PROBES};
use crate::index::QUERY_TILE;

/// One selection. Lengths in tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Sequences.
    pub batch: usize,
    /// Query heads.
    pub heads: usize,
    /// KV heads; divides `heads`.
    pub kv_heads: usize,
    /// Heads with a choice of their own: the KV heads or the query heads.
    pub index_heads: usize,
    /// Query rows of the longest sequence.
    pub rows: usize,
    /// Keys of the longest sequence.
    pub keys: usize,
    /// Head dimension, a multiple of 8.
    pub head_dim: usize,
    /// Softmax scale.
    pub scale: f32,
}

impl Shape {
    /// Query blocks per sequence and head.
    pub fn query_blocks(&self) -> usize {
        self.rows.div_ceil(BLOCK)
    }

    /// Index rows per sequence and head.
    pub fn tiles(&self) -> usize {
        self.rows.div_ceil(QUERY_TILE)
    }

    /// Key blocks.
    pub fn key_blocks(&self) -> usize {
        self.keys.div_ceil(BLOCK)
    }

    /// Buckets of slash offsets.
    pub fn slash_buckets(&self) -> usize {
        self.keys.div_ceil(GRANULE)
    }

    /// Query heads that share a choice.
    pub fn sharing(&self) -> usize {
        self.heads / self.index_heads
    }

    /// Words of a mask over key blocks.
    pub fn mask_words(&self) -> usize {
        self.key_blocks().div_ceil(32)
    }

    /// Query heads that share keys.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }
}

/// One sequence of the batch, as the head of the index table has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequence {
    /// New query rows.
    pub query_len: usize,
    /// Cached keys, the new rows included.
    pub kv_len: usize,
}

impl Sequence {
    /// Sequence `b` of a table's spans.
    pub fn of(spans: &[u32], b: usize) -> Self {
        Self {
            query_len: spans[b * 4] as usize,
            kv_len: spans[b * 4 + 1] as usize,
        }
    }

    /// Absolute position of the first query row.
    pub fn offset(&self) -> usize {
        self.kv_len - self.query_len
    }

    /// Valid probe rows of the two groups: last, spread.
    pub fn probes(&self) -> [usize; 2] {
        let half = PROBES / 2;
        let spread = if self.query_len >= PROBES { half } else { 0 };
        [self.query_len.min(half), spread]
    }
}

/// Query row of probe `probe` of a sequence with `rows` new rows; `None` if it has too few.
pub fn probe_row(probe: usize, rows: usize) -> Option<usize> {
    const HALF: usize = PROBES / 2;
    match probe {
        0..HALF if rows >= HALF => Some(rows - HALF + probe),
        0..HALF => (probe < rows).then_some(probe),
        _ if rows >= PROBES => Some((2 * (probe - HALF) + 1) * rows / PROBES),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probe_rows_are_the_last_and_the_spread_ones() {
        for rows in [1, 63, 64, 65, 127, 128, 129, 1000] {
            let all: Vec<_> = (0..PROBES).map(|r| probe_row(r, rows)).collect();
            let counts = [&all[..64], &all[64..]].map(|g| g.iter().flatten().count());
            let sequence = Sequence {
                query_len: rows,
                kv_len: rows,
            };
            assert_eq!(counts, sequence.probes());
            assert!(all.iter().flatten().all(|&row| row < rows));
            let last: Vec<_> = all[..64].iter().flatten().copied().collect();
            assert_eq!(last, (rows.saturating_sub(64)..rows).collect::<Vec<_>>());
            let spread: Vec<_> = all[64..].iter().flatten().collect();
            assert!(spread.windows(2).all(|w| w[0] < w[1]));
        }
        assert_eq!(probe_row(64, 1280), Some(10));
        assert_eq!(probe_row(127, 1280), Some(1270));
    }
}
