//! Lengths of the buffers that a selection takes, in words of 4 bytes.
//!
//! Kernels and CPU implementation allocate by them, and the memory planner adds them up.

use crate::{
    lists::ListLayout,
    report::REPORT_WORDS,
    shape::Shape,
    sizes::{GRANULE, PROBES},
    table::TableLayout,
};

/// Bytes of a word.
pub const WORD_BYTES: usize = 4;
/// Vectors that a pooled key block has: mean key, variance of the keys, mean value.
pub const POOLED_VECTORS: usize = 3;
/// Words of a query head's covered mass: that of sinks and window, and that with columns and slashes, of
/// either group of probes.
pub const COVERED_WORDS: usize = 4;
/// Query heads of a KV head that one cube of the probes takes at most.
pub const PROBE_SLOTS: usize = 8;

/// The words of every buffer of a selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SelectionWords {
    /// Log-sum-exp of the probe rows, `[B, Hq, PROBES]`.
    pub probe_lse: usize,
    /// Attention of the probe rows by column, `[B, Hq, 2, keys]`.
    pub columns: usize,
    /// Attention of the probe rows by slash bucket, `[B, Hq, 2, buckets]`.
    pub slashes: usize,
    /// Scratch of the columns' cut, see [`CutScratch`].
    pub cut: usize,
    /// Kept columns and slashes, `[B * Hi]` rows of a [`ListLayout`].
    pub lists: usize,
    /// Covered mass, `[B * Hq, COVERED_WORDS]`.
    pub covered: usize,
    /// Shares of key blocks, `[B, Hq, query blocks, key blocks]`.
    pub shares: usize,
    /// Kept blocks as bits, `[2, B * Hi, query blocks, mask words]`.
    pub masks: usize,
    /// Kept blocks counted, `[2, B * Hi, query blocks]`.
    pub counts: usize,
    /// Reports, `[B * Hi, REPORT_WORDS]`.
    pub report: usize,
    /// Gates, `[B * Hi]`.
    pub gates: usize,
    /// The index as a table, see [`TableLayout`].
    pub table: usize,
    /// Keys that the last row of each tile sees, `[B * Hi, tiles]`.
    pub kept: usize,
}

impl SelectionWords {
    /// Counts the words of a selection with room for `lists`.
    pub fn new(shape: &Shape, lists: &ListLayout) -> Self {
        let (heads, indexes) = (shape.batch * shape.heads, shape.indexes());
        let blocks = shape.query_blocks();
        Self {
            probe_lse: heads * PROBES,
            columns: heads * 2 * shape.keys,
            slashes: heads * 2 * shape.slash_buckets(),
            cut: CutScratch::new(shape).words(shape),
            lists: indexes * lists.stride(),
            covered: heads * COVERED_WORDS,
            shares: heads * blocks * shape.key_blocks(),
            masks: 2 * indexes * blocks * shape.mask_words(),
            counts: 2 * indexes * blocks,
            report: indexes * REPORT_WORDS,
            gates: indexes,
            table: TableLayout::new(shape, lists).words,
            kept: indexes * shape.tiles(),
        }
    }

    /// Adds up all buffers but the report, which outlives the layer. They are not all alive at once.
    pub fn total(&self) -> usize {
        let Self {
            probe_lse,
            columns,
            slashes,
            cut,
            lists,
            covered,
            shares,
            masks,
            counts,
            report: _,
            gates,
            table,
            kept,
        } = *self;
        let probes = probe_lse + columns + slashes + covered;
        probes + cut + lists + shares + masks + counts + gates + table + kept
    }
}

/// Counts the words of pooled keys: `[B, Hk, blocks, POOLED_VECTORS, d]` in f32.
pub fn pooled(shape: &Shape, blocks: usize) -> usize {
    shape.batch * shape.kv_heads * blocks * POOLED_VECTORS * shape.head_dim
}

/// The scratch of the columns' cut: for every index head the scores of its columns and slash buckets, then
/// of every segment of positions how many scores fall into each bin, and sums by query head and group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutScratch {
    /// Keys of the longest sequence.
    pub keys: usize,
    /// Slash buckets of the longest sequence.
    pub buckets: usize,
    /// Segments of positions.
    pub segments: usize,
    /// Query heads of an index head.
    pub heads_per_index: usize,
}

impl CutScratch {
    /// Positions of a segment; its slash buckets are as many offsets wide.
    pub const SEGMENT: usize = 2048;
    /// Slash buckets of a segment.
    pub const SEGMENT_BUCKETS: usize = Self::SEGMENT / GRANULE;
    /// Bins of columns, an eighth of an octave each: all that scores, at most 1, can have.
    pub const COLUMN_BINS: usize = 1024;
    /// Bins of slash buckets, whose sums are whole numbers below 2^32.
    pub const SLASH_BINS: usize = 264;
    /// Bins of a segment.
    pub const BINS: usize = Self::COLUMN_BINS + Self::SLASH_BINS;

    /// Lays out the scratch of a selection.
    pub fn new(shape: &Shape) -> Self {
        Self {
            keys: shape.keys,
            buckets: shape.slash_buckets(),
            segments: shape.keys.div_ceil(Self::SEGMENT),
            heads_per_index: shape.heads_per_index(),
        }
    }

    /// Counts the words of an index head.
    pub fn stride(&self) -> usize {
        let segment = Self::BINS + 2 * self.heads_per_index;
        self.keys + self.buckets + self.segments * segment
    }

    /// Counts the words of all index heads.
    pub fn words(&self, shape: &Shape) -> usize {
        shape.indexes() * self.stride()
    }
}

/// The scratch of the probes: per cube of 128 keys, the maximum and the sum of every packed row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeScratch {
    /// Query heads that a cube has room for, a power of two.
    pub slots: usize,
    /// Cubes that share the query heads of a KV head.
    pub packs: usize,
    /// Cubes.
    pub cubes: usize,
}

/// Gives the query heads of a KV head that a cube has room for, a power of two, and the cubes that share those of a KV
/// head.
pub fn packed_heads(shape: &Shape) -> (usize, usize) {
    let heads = shape.heads_per_kv();
    let slots = heads.next_power_of_two().min(PROBE_SLOTS);
    (slots, heads.div_ceil(slots))
}

impl ProbeScratch {
    /// Lays out the scratch of a selection.
    pub fn new(shape: &Shape) -> Self {
        let (slots, packs) = packed_heads(shape);
        Self {
            slots,
            packs,
            cubes: shape.batch * shape.kv_heads * packs * shape.key_blocks(),
        }
    }

    /// Counts the words, at most `usize::MAX`.
    pub fn words(&self) -> usize {
        self.cubes.saturating_mul(2 * PROBES * self.slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::visible::Visible;

    #[test]
    fn lengths_of_one_selection_by_hand() {
        let shape = Shape {
            batch: 1,
            heads: 32,
            kv_heads: 8,
            index_heads: 32,
            rows: 8192,
            keys: 131_072,
            head_dim: 128,
            scale: 1.0,
            visible: Visible::Causal,
        };
        let lists = ListLayout {
            columns: 1024,
            slashes: 256,
        };
        let words = SelectionWords::new(&shape, &lists);
        assert_eq!(words.columns + words.slashes, 32 * 2 * (131_072 + 8192));
        assert_eq!(words.cut, 32 * (131_072 + 8192 + 64 * (1288 + 2)));
        assert_eq!(words.shares, 32 * 64 * 1024);
        assert_eq!(words.masks + words.counts, 2 * 32 * 64 * (32 + 1));
        assert_eq!(words.report, 32 * 16);
        assert_eq!(
            words.table,
            4 + 32 + 32 * 128 * (4 + 2 * (512 + 256 + 2) + 1024)
        );
        assert_eq!(pooled(&shape, 1024), 8 * 1024 * 3 * 128);
        let scratch = ProbeScratch::new(&shape);
        assert_eq!((scratch.slots, scratch.packs), (4, 1));
        assert_eq!(scratch.words(), 256 * 32 * 1024);
    }
}
