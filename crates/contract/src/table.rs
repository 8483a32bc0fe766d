//! The table of a chunk: `u32` words that tell attention which keys every query tile sees.
//!
//! | part | words | contents |
//! | --- | --- | --- |
//! | spans | `[B, SPAN_WORDS]` | new rows, keys, first position that sees everything, position of the first key: [`Sequence`] |
//! | rows | `[B * Hi * tiles, ROW_WORDS]` | where a row's ranges and columns stand, and how many: [`IndexRow`] |
//! | gates | `[B * Hi]` | [`SPARSE`] or [`DENSE`]; tables of selections alone have them |
//! | ranges | pairs | start and end in tokens, ascending and disjoint |
//! | columns | | single positions, ascending |
//!
//! Dense attention needs the spans alone. Rows point by absolute offsets into the table, so two packings
//! serve the same kernels: [`write()`] packs an index tightly, [`TableLayout`] gives every row a room of
//! fixed size, which a device can fill without knowing what the other rows hold.

use crate::{
    lists::ListLayout,
    shape::{Sequence, Shape},
    sizes::GRANULE,
};

/// Words of a sequence's span.
pub const SPAN_WORDS: usize = 4;
/// Words of an index row.
pub const ROW_WORDS: usize = 4;
/// Words of a range: start and end.
pub const RANGE_WORDS: usize = 2;
/// Position that stands for "no limit".
pub const UNLIMITED: usize = u32::MAX as usize;
/// Gate of an index head whose keys the index names.
pub const SPARSE: u32 = 0;
/// Gate of an index head that sees everything.
pub const DENSE: u32 = 1;

/// Gives the word of a length or position; what does not fit becomes [`UNLIMITED`].
pub fn word(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// One row of an index: where its ranges and columns stand, and how many it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IndexRow {
    /// First range. In a table: the word at which it stands; in [`Packed`] rows: ranges before it.
    pub ranges_at: u32,
    /// Ranges.
    pub ranges: u32,
    /// First column. In a table: the word at which it stands; in [`Packed`] rows: columns before it.
    pub columns_at: u32,
    /// Columns.
    pub columns: u32,
}

impl IndexRow {
    /// Word of [`IndexRow::ranges_at`].
    pub const RANGES_AT: usize = 0;
    /// Word of [`IndexRow::ranges`].
    pub const RANGES: usize = 1;
    /// Word of [`IndexRow::columns_at`].
    pub const COLUMNS_AT: usize = 2;
    /// Word of [`IndexRow::columns`].
    pub const COLUMNS: usize = 3;

    /// Reads row `row` of consecutive rows.
    #[inline]
    pub fn of(rows: &[u32], row: usize) -> Self {
        let words = &rows[row * ROW_WORDS..][..ROW_WORDS];
        Self {
            ranges_at: words[Self::RANGES_AT],
            ranges: words[Self::RANGES],
            columns_at: words[Self::COLUMNS_AT],
            columns: words[Self::COLUMNS],
        }
    }

    /// Gives the words of the row.
    #[inline]
    pub fn words(&self) -> [u32; ROW_WORDS] {
        let mut words = [0; ROW_WORDS];
        words[Self::RANGES_AT] = self.ranges_at;
        words[Self::RANGES] = self.ranges;
        words[Self::COLUMNS_AT] = self.columns_at;
        words[Self::COLUMNS] = self.columns;
        words
    }

    /// Gives the words of the row's ranges and its columns in the table that holds it.
    pub fn keys<'a>(&self, table: &'a [u32]) -> (&'a [u32], &'a [u32]) {
        (
            &table[self.ranges_at as usize..][..RANGE_WORDS * self.ranges as usize],
            &table[self.columns_at as usize..][..self.columns as usize],
        )
    }
}

/// An index on the host, its rows relative to its own ranges and columns.
#[derive(Debug, Clone, Copy)]
pub struct Packed<'a> {
    /// `[B * Hi * tiles, ROW_WORDS]`: see [`IndexRow`].
    pub rows: &'a [u32],
    /// Pairs of start and end of all rows.
    pub ranges: &'a [u32],
    /// Columns of all rows.
    pub columns: &'a [u32],
}

/// Writes the spans: a table without an index, or its head.
pub fn spans(sequences: impl IntoIterator<Item = Sequence>) -> Vec<u32> {
    let words = sequences.into_iter().flat_map(|s| s.words());
    words.collect()
}

/// Writes the table of an index, tightly packed, with `gates` of every sequence and index head, or none.
pub fn write(
    sequences: impl IntoIterator<Item = Sequence>,
    index: Packed<'_>,
    gates: &[u32],
) -> Vec<u32> {
    let mut table = spans(sequences);
    let ranges_at = word(table.len() + index.rows.len() + gates.len());
    let columns_at = ranges_at + word(index.ranges.len());
    for row in 0..index.rows.len() / ROW_WORDS {
        let row = IndexRow::of(index.rows, row);
        let absolute = IndexRow {
            ranges_at: ranges_at + RANGE_WORDS as u32 * row.ranges_at,
            columns_at: columns_at + row.columns_at,
            ..row
        };
        table.extend(absolute.words());
    }
    table.extend_from_slice(gates);
    table.extend_from_slice(index.ranges);
    table.extend_from_slice(index.columns);
    table
}

/// The places of the parts of a table with rooms of fixed size, in words; spans are first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TableLayout {
    /// `[B * Hi * tiles, ROW_WORDS]`, see [`IndexRow`].
    pub rows_at: usize,
    /// `[B * Hi]`, see [`DENSE`].
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

/// The parts of a table, to be filled.
#[derive(Debug)]
#[allow(missing_docs)] // as TableLayout explains them
pub struct Parts<'a> {
    pub spans: &'a mut [u32],
    pub rows: &'a mut [u32],
    pub gates: &'a mut [u32],
    pub ranges: &'a mut [u32],
    pub columns: &'a mut [u32],
}

impl TableLayout {
    /// Lays out the table of a selection. The runs of a row are at most its slashes, every other key block,
    /// sinks and window, and never more than every other granule.
    pub fn new(shape: &Shape, lists: &ListLayout) -> Self {
        let runs = (shape.key_blocks().div_ceil(2) + lists.slashes + 2)
            .min(shape.keys.div_ceil(GRANULE).div_ceil(2));
        Self::of_runs(shape, runs, lists.columns)
    }

    /// Lays out a table whose rows have room for `runs` ranges and `columns` columns.
    pub fn of_runs(shape: &Shape, runs: usize, columns: usize) -> Self {
        let heads = shape.indexes();
        let rows = heads * shape.tiles();
        let gates_at = Self::gates_at(shape.batch, rows);
        let ranges_at = gates_at + heads;
        let range_stride = RANGE_WORDS * runs;
        let columns_at = ranges_at + rows * range_stride;
        Self {
            rows_at: SPAN_WORDS * shape.batch,
            gates_at,
            ranges_at,
            range_stride,
            columns_at,
            column_stride: columns,
            words: columns_at + rows * columns,
        }
    }

    /// Gives the first gate's word in a table of `batch` sequences and `rows` index rows of all heads.
    pub fn gates_at(batch: usize, rows: usize) -> usize {
        SPAN_WORDS * batch + ROW_WORDS * rows
    }

    /// Gives row `row` of all heads, with as many ranges and columns in its room.
    #[inline]
    pub fn row(&self, row: usize, ranges: usize, columns: usize) -> IndexRow {
        IndexRow {
            ranges_at: word(self.ranges_at + row * self.range_stride),
            ranges: word(ranges),
            columns_at: word(self.columns_at + row * self.column_stride),
            columns: word(columns),
        }
    }

    /// Splits a table of this layout into its parts.
    ///
    /// # Panics
    /// If the table is shorter than [`TableLayout::words`].
    pub fn split<'a>(&self, table: &'a mut [u32]) -> Parts<'a> {
        let (spans, rest) = table[..self.words].split_at_mut(self.rows_at);
        let (rows, rest) = rest.split_at_mut(self.gates_at - self.rows_at);
        let (gates, rest) = rest.split_at_mut(self.ranges_at - self.gates_at);
        let (ranges, columns) = rest.split_at_mut(self.columns_at - self.ranges_at);
        Parts {
            spans,
            rows,
            gates,
            ranges,
            columns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::visible::Visible;

    #[test]
    fn rows_point_at_their_ranges_and_columns() {
        let sequences = [Sequence::new(64, 64), Sequence::new(1, 20).dense_from(20)];
        let first = IndexRow {
            ranges: 1,
            columns: 1,
            ..IndexRow::default()
        };
        let second = IndexRow {
            ranges_at: 1,
            ranges: 2,
            columns_at: 1,
            columns: 0,
        };
        let rows = [first.words(), second.words()].concat();
        let index = Packed {
            rows: &rows,
            ranges: &[0, 16, 0, 16, 32, 40],
            columns: &[7],
        };
        for gates in [&[][..], &[SPARSE, DENSE]] {
            let table = write(sequences, index, gates);
            assert_eq!(Sequence::of(&table, 1), sequences[1]);
            let gates_at = TableLayout::gates_at(2, 2);
            assert_eq!(&table[gates_at..gates_at + gates.len()], gates);
            let row = |i| IndexRow::of(&table[2 * SPAN_WORDS..], i).keys(&table);
            assert_eq!(row(0), (&[0, 16][..], &[7][..]));
            assert_eq!(row(1), (&[0, 16, 32, 40][..], &[][..]));
        }
    }

    #[test]
    fn rooms_follow_one_another() {
        let shape = Shape {
            batch: 2,
            heads: 4,
            kv_heads: 2,
            index_heads: 2,
            rows: 200,
            keys: 1000,
            head_dim: 64,
            scale: 0.125,
            visible: Visible::Causal,
        };
        let lists = ListLayout {
            columns: 10,
            slashes: 3,
        };
        let layout = TableLayout::new(&shape, &lists);
        let mut table = vec![0; layout.words];
        let parts = layout.split(&mut table);
        let rows = 2 * 2 * 4;
        assert_eq!(parts.spans.len(), 2 * SPAN_WORDS);
        assert_eq!(parts.rows.len(), rows * ROW_WORDS);
        assert_eq!(parts.gates.len(), 4);
        assert_eq!(parts.ranges.len(), rows * layout.range_stride);
        assert_eq!(parts.columns.len(), rows * 10);
        // Four of eight key blocks, three slashes, sinks and window.
        assert_eq!(layout.range_stride, 2 * (4 + 3 + 2));
        let last = layout.row(rows - 1, 0, 10);
        assert_eq!((last.columns_at + last.columns) as usize, layout.words);
        assert_eq!(
            last.ranges_at as usize + layout.range_stride,
            layout.columns_at
        );
    }
}
