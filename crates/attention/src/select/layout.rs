//! The words of rules, and where the parts of lists and tables stand: equal to those of the kernels.

use super::{GRANULE, RULE_WORDS, Shape};

/// The rules of one index head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// Allowed patterns: bit 0 dense, 1 triangular, 2 interval-slash, 3 block-cluster, 4 hybrid.
    pub allowed: u32,
    /// Sink tokens.
    pub sink: u32,
    /// Window tokens, at least 1.
    pub window: u32,
    /// Most columns.
    pub columns: u32,
    /// Most slash buckets.
    pub slashes: u32,
    /// Recall that is aimed at, 0 to 1.
    pub floor: f32,
    /// Measured recall that is accepted, 0 to 1.
    pub accepted: f32,
    /// Share of the largest block that a block needs; 0 for the rule of the blocks' mass.
    pub alpha: f32,
}

impl Rules {
    /// The words of the rules' buffer.
    pub fn words(&self) -> [u32; RULE_WORDS] {
        [
            self.allowed,
            self.sink,
            self.window,
            self.columns,
            self.slashes,
            self.floor.to_bits(),
            self.alpha.to_bits(),
            self.accepted.to_bits(),
        ]
    }

    /// The rules of an index head.
    pub(super) fn read(words: &[u32], head: usize) -> Self {
        let words = &words[head * RULE_WORDS..][..RULE_WORDS];
        Self {
            allowed: words[0],
            sink: words[1],
            window: words[2],
            columns: words[3],
            slashes: words[4],
            floor: f32::from_bits(words[5]),
            alpha: f32::from_bits(words[6]),
            accepted: f32::from_bits(words[7]),
        }
    }

    /// Whether the head may be dense.
    pub(super) fn may_be_dense(&self) -> bool {
        self.allowed & 1 == 1
    }

    /// Leading keys that every row sees, and latest keys, the row's own included: at least 1.
    pub(super) fn local(&self) -> (usize, usize) {
        (self.sink as usize, self.window.max(1) as usize)
    }
}

/// The room for kept columns and slashes: rows of `columns, slashes` (counts), then both lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListLayout {
    /// Most columns of an index head.
    pub columns: usize,
    /// Most slash buckets of an index head.
    pub slashes: usize,
}

impl ListLayout {
    /// First word of the columns in a row.
    pub const COLUMNS_AT: usize = 2;

    /// First word of the slash buckets in a row.
    pub fn slashes_at(&self) -> usize {
        Self::COLUMNS_AT + self.columns
    }

    /// Words of a row.
    pub fn stride(&self) -> usize {
        self.slashes_at() + self.slashes
    }

    /// The columns and the slash buckets of a row.
    pub fn read<'a>(&self, row: &'a [u32]) -> (&'a [u32], &'a [u32]) {
        let (columns, slashes) = row[Self::COLUMNS_AT..].split_at(self.columns);
        (
            &columns[..(row[0] as usize).min(self.columns)],
            &slashes[..(row[1] as usize).min(self.slashes)],
        )
    }
}

/// Where the parts of an index stand in its table, in words; spans are first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableLayout {
    /// `[B * Hi * tiles, 4]`: first range, ranges, first column, columns.
    pub rows_at: usize,
    /// `[B * Hi]`: 1 where the head is dense.
    pub gates_at: usize,
    /// `[B * Hi * tiles, range_stride]`: pairs of start and end.
    pub ranges_at: usize,
    /// Words of a row's ranges.
    pub range_stride: usize,
    /// `[B * Hi * tiles, column_stride]`.
    pub columns_at: usize,
    /// Words of a row's columns.
    pub column_stride: usize,
    /// Words in all.
    pub words: usize,
}

impl TableLayout {
    /// The layout for a shape. The runs of a row are at most its slashes, every other key block, sinks
    /// and window, and never more than every other granule.
    pub fn new(shape: &Shape, lists: &ListLayout) -> Self {
        let heads = shape.batch * shape.index_heads;
        let rows = heads * shape.tiles();
        let runs = (shape.key_blocks().div_ceil(2) + lists.slashes + 2)
            .min(shape.keys.div_ceil(GRANULE).div_ceil(2));
        let rows_at = 4 * shape.batch;
        let gates_at = rows_at + 4 * rows;
        let ranges_at = gates_at + heads;
        let range_stride = 2 * runs;
        let columns_at = ranges_at + rows * range_stride;
        Self {
            rows_at,
            gates_at,
            ranges_at,
            range_stride,
            columns_at,
            column_stride: lists.columns,
            words: columns_at + rows * lists.columns,
        }
    }
}
