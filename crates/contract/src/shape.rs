//! The shape of a selection, one sequence of a chunk, its probe rows.

use crate::{
    sizes::{BLOCK, GRANULE, PROBE_GROUP, PROBES, QUERY_TILE},
    table::{SPAN_WORDS, UNLIMITED, word},
    visible::Visible,
};

/// The shape of a selection. Lengths in tokens.
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
    /// The keys that a row may see before its head chooses among them.
    pub visible: Visible,
}

impl Shape {
    /// Counts query blocks per sequence and head.
    pub fn query_blocks(&self) -> usize {
        self.rows.div_ceil(BLOCK)
    }

    /// Counts index rows per sequence and head.
    pub fn tiles(&self) -> usize {
        self.rows.div_ceil(QUERY_TILE)
    }

    /// Counts key blocks.
    pub fn key_blocks(&self) -> usize {
        self.keys.div_ceil(BLOCK)
    }

    /// Counts buckets of slash offsets.
    pub fn slash_buckets(&self) -> usize {
        self.keys.div_ceil(GRANULE)
    }

    /// Counts words of a bit mask over key blocks.
    pub fn mask_words(&self) -> usize {
        self.key_blocks().div_ceil(32)
    }

    /// Gives the keys of the window; `None` where every row sees all keys up to its own.
    pub fn window(&self) -> Option<u32> {
        self.visible.window(self.keys)
    }

    /// Counts query heads that share a KV head.
    pub fn heads_per_kv(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Counts query heads that share an index head, and so a choice.
    pub fn heads_per_index(&self) -> usize {
        self.heads / self.index_heads
    }

    /// Counts index heads of all sequences.
    pub fn indexes(&self) -> usize {
        self.batch * self.index_heads
    }
}

/// One sequence of a chunk, as the head of the table has it. Lengths and positions in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequence {
    /// New query rows.
    pub query_len: usize,
    /// Cached keys, the new rows included.
    pub kv_len: usize,
    /// First position whose rows see everything; [`UNLIMITED`] for none.
    pub dense_from: usize,
    /// Absolute position of the first cached key, from which all other positions are counted. Only rotation reads it.
    pub first: usize,
}

impl Sequence {
    /// Word of [`Sequence::query_len`] in a span.
    pub const QUERY_LEN: usize = 0;
    /// Word of [`Sequence::kv_len`] in a span.
    pub const KV_LEN: usize = 1;
    /// Word of [`Sequence::dense_from`] in a span.
    pub const DENSE_FROM: usize = 2;
    /// Word of [`Sequence::first`] in a span.
    pub const FIRST: usize = 3;

    /// Makes a sequence without rows that see everything.
    pub fn new(query_len: usize, kv_len: usize) -> Self {
        Self {
            query_len,
            kv_len,
            dense_from: UNLIMITED,
            first: 0,
        }
    }

    /// Sets the first position whose rows see everything.
    #[must_use]
    pub fn dense_from(self, dense_from: usize) -> Self {
        Self { dense_from, ..self }
    }

    /// Sets the absolute position of the first cached key.
    #[must_use]
    pub fn first(self, first: usize) -> Self {
        Self { first, ..self }
    }

    /// Reads sequence `b` from a table or from spans alone.
    #[inline]
    pub fn of(table: &[u32], b: usize) -> Self {
        let words = &table[b * SPAN_WORDS..][..SPAN_WORDS];
        Self {
            query_len: words[Self::QUERY_LEN] as usize,
            kv_len: words[Self::KV_LEN] as usize,
            dense_from: words[Self::DENSE_FROM] as usize,
            first: words[Self::FIRST] as usize,
        }
    }

    /// Gives the words of the span. What does not fit a word becomes [`UNLIMITED`].
    pub fn words(&self) -> [u32; SPAN_WORDS] {
        let mut words = [0; SPAN_WORDS];
        words[Self::QUERY_LEN] = word(self.query_len);
        words[Self::KV_LEN] = word(self.kv_len);
        words[Self::DENSE_FROM] = word(self.dense_from);
        words[Self::FIRST] = word(self.first);
        words
    }

    /// Gives the position of the first query row.
    pub fn offset(&self) -> usize {
        self.kv_len - self.query_len
    }

    /// Counts valid probe rows of the two groups: last, spread.
    pub fn probes(&self) -> [usize; 2] {
        let spread = if self.query_len >= PROBES {
            PROBE_GROUP
        } else {
            0
        };
        [self.query_len.min(PROBE_GROUP), spread]
    }
}

/// Gives the query row of probe `probe` in a sequence with `rows` new rows; `None` if it has too few.
///
/// The first group is the last 64 rows. The second takes the middles of 64 equal parts of the chunk, and is
/// empty in chunks of fewer than 128 rows.
pub fn probe_row(probe: usize, rows: usize) -> Option<usize> {
    match probe {
        0..PROBE_GROUP if rows >= PROBE_GROUP => Some(rows - PROBE_GROUP + probe),
        0..PROBE_GROUP => (probe < rows).then_some(probe),
        _ if rows >= PROBES => Some((2 * (probe - PROBE_GROUP) + 1) * rows / PROBES),
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
            assert_eq!(counts, Sequence::new(rows, rows).probes());
            assert!(all.iter().flatten().all(|&row| row < rows));
            let last: Vec<_> = all[..64].iter().flatten().copied().collect();
            assert_eq!(last, (rows.saturating_sub(64)..rows).collect::<Vec<_>>());
            let spread: Vec<_> = all[64..].iter().flatten().collect();
            assert!(spread.windows(2).all(|w| w[0] < w[1]));
        }
        assert_eq!(probe_row(64, 1280), Some(10));
        assert_eq!(probe_row(127, 1280), Some(1270));
    }

    #[test]
    fn a_span_has_the_words_that_kernels_read() {
        let sequence = Sequence::new(7, 30).dense_from(25);
        assert_eq!(sequence.words(), [7, 30, 25, 0]);
        assert_eq!(Sequence::new(7, 30).words(), [7, 30, u32::MAX, 0]);
        let table = [[1, 2, 3, 0], sequence.words()].concat();
        assert_eq!(Sequence::of(&table, 1), sequence);
    }
}
