//! The index itself, as flat `u32` tables in the layout that devices read.

use sparse_accelerate_contract::{IndexRow, RANGE_WORDS, ROW_WORDS, SPAN_WORDS, table::Packed};

use crate::{
    error::AttentionError,
    index::{Band, Builder, QUERY_TILE, RANGE_ALIGN},
    span::Span,
    visible::{self, Visible},
};

/// One row of the index, borrowed: what one query tile of one index head sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    /// Key ranges `[start, end)` in tokens, flattened in pairs.
    pub ranges: &'a [u32],
    /// Single key positions.
    pub columns: &'a [u32],
}

/// An index for a ragged batch. See the [module documentation](crate::index) for its invariants.
#[derive(Debug, Clone, PartialEq)]
pub struct TileIndex {
    pub(super) spans: Vec<Span>,
    pub(super) heads: usize,
    pub(super) tiles: usize,
    pub(super) band: Option<Band>,
    pub(super) visible: Visible,
    /// `[batch * heads * tiles, 4]`: range start, range count, column start, column count.
    pub(super) rows: Vec<u32>,
    /// `[ranges, 2]`: start, end.
    pub(super) ranges: Vec<u32>,
    pub(super) columns: Vec<u32>,
}

impl TileIndex {
    /// An index from a table in the layout that devices read: `[B, 4]` words of spans, which are left
    /// unread, `[B, heads, tiles, 4]` words of rows, and ranges and columns anywhere behind, to which the
    /// rows point by absolute offsets. Reads back what a device built; there is no band.
    ///
    /// # Errors
    /// Spans that are empty or contradict themselves; zero heads; a row that points outside the table;
    /// broken invariants.
    pub fn from_table(spans: &[Span], heads: usize, table: &[u32]) -> Result<Self, AttentionError> {
        let mut index = Builder::new(spans, heads, None)?.into_unchecked();
        for flat in 0..index.row_count() {
            let outside = |what: &str| AttentionError::Index {
                row: flat,
                reason: format!("its {what} lie outside the table's {} words", table.len()),
            };
            let at = SPAN_WORDS * spans.len() + ROW_WORDS * flat;
            let row = table.get(at..at + ROW_WORDS);
            let row = IndexRow::of(row.ok_or_else(|| outside("words"))?, 0);
            let part = |start: u32, len: u32, each: usize| {
                let start = start as usize;
                table.get(start..start + len as usize * each)
            };
            let ranges =
                part(row.ranges_at, row.ranges, RANGE_WORDS).ok_or_else(|| outside("ranges"))?;
            let columns = part(row.columns_at, row.columns, 1).ok_or_else(|| outside("columns"))?;
            let packed = IndexRow {
                ranges_at: (index.ranges.len() / RANGE_WORDS) as u32,
                columns_at: index.columns.len() as u32,
                ..row
            };
            index.rows[flat * ROW_WORDS..][..ROW_WORDS].copy_from_slice(&packed.words());
            index.ranges.extend_from_slice(ranges);
            index.columns.extend_from_slice(columns);
        }
        index.validate()?;
        Ok(index)
    }

    /// The sequences the index was built for.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Index heads: a divisor of the KV heads, or the number of query heads.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Query tiles per sequence and head: those of the longest sequence.
    pub fn tiles(&self) -> usize {
        self.tiles
    }

    /// The element rule inside the ranges, if any. Columns are not subject to it.
    pub fn band(&self) -> Option<Band> {
        self.band
    }

    /// The keys that rows may see at all, in ranges and columns alike.
    pub fn visible(&self) -> Visible {
        self.visible
    }

    /// The index cut to the keys that a model lets its rows see, on top of what it was cut to before: ranges
    /// begin no earlier than the first row of their tile sees, rounded down to [`RANGE_ALIGN`], and columns
    /// before it are gone.
    ///
    /// # Errors
    /// A window of 0.
    pub fn within(self, visible: Visible) -> Result<Self, AttentionError> {
        visible.validate()?;
        let visible = self.visible.and(visible);
        if visible == self.visible {
            return Ok(self);
        }
        let mut cut = Self {
            spans: self.spans.clone(),
            heads: self.heads,
            tiles: self.tiles,
            band: self.band,
            visible,
            rows: vec![0; self.rows.len()],
            ranges: Vec::with_capacity(self.ranges.len()),
            columns: Vec::with_capacity(self.columns.len()),
        };
        for flat in 0..self.row_count() {
            let span = &self.spans[flat / self.tiles / self.heads];
            let first = visible.first(span.offset() + flat % self.tiles * QUERY_TILE) as u32;
            let start = first / RANGE_ALIGN as u32 * RANGE_ALIGN as u32;
            let row = self.row_at(flat);
            let at = [cut.ranges.len() / RANGE_WORDS, cut.columns.len()];
            for range in row.ranges.chunks_exact(2).filter(|r| r[1] > first) {
                cut.ranges.extend([range[0].max(start), range[1]]);
            }
            let kept = row.columns.partition_point(|&c| c < first);
            cut.columns.extend_from_slice(&row.columns[kept..]);
            let row = IndexRow {
                ranges_at: at[0] as u32,
                ranges: (cut.ranges.len() / RANGE_WORDS - at[0]) as u32,
                columns_at: at[1] as u32,
                columns: (cut.columns.len() - at[1]) as u32,
            };
            cut.rows[flat * ROW_WORDS..][..ROW_WORDS].copy_from_slice(&row.words());
        }
        Ok(cut)
    }

    /// Row table, `[batch * heads * tiles, 4]`: first range, ranges, first column, columns.
    pub fn row_table(&self) -> &[u32] {
        &self.rows
    }

    /// Range table, `[n, 2]`: start and end in tokens.
    pub fn range_table(&self) -> &[u32] {
        &self.ranges
    }

    /// Column table, `[n]`: key positions in tokens.
    pub fn column_table(&self) -> &[u32] {
        &self.columns
    }

    /// All three tables, as [`sparse_accelerate_contract::table::write`] takes them.
    pub fn packed(&self) -> Packed<'_> {
        Packed {
            rows: &self.rows,
            ranges: &self.ranges,
            columns: &self.columns,
        }
    }

    /// Number of rows in the row table.
    pub fn row_count(&self) -> usize {
        self.rows.len() / ROW_WORDS
    }

    /// The row of a sequence, an index head and a query tile.
    pub fn row(&self, sequence: usize, head: usize, tile: usize) -> Row<'_> {
        self.row_at((sequence * self.heads + head) * self.tiles + tile)
    }

    pub(super) fn row_at(&self, flat: usize) -> Row<'_> {
        let row = IndexRow::of(&self.rows, flat);
        let ranges = &self.ranges[row.ranges_at as usize * RANGE_WORDS..];
        Row {
            ranges: &ranges[..row.ranges as usize * RANGE_WORDS],
            columns: &self.columns[row.columns_at as usize..][..row.columns as usize],
        }
    }

    /// Tells whether query row `i` (0-based among the new rows) of a sequence sees key `j`.
    pub fn sees(&self, sequence: usize, head: usize, i: usize, j: usize) -> bool {
        let span = &self.spans[sequence];
        let p = span.offset() + i;
        let row = self.row(sequence, head, i / QUERY_TILE);
        let key = j as u32;
        let in_ranges = || {
            row.ranges
                .chunks_exact(2)
                .any(|r| r[0] <= key && key < r[1])
        };
        let in_band = || self.band.is_none_or(|b| b.sees(span, p, j));
        self.visible.sees(p, j)
            && (row.columns.binary_search(&key).is_ok() || (in_ranges() && in_band()))
    }

    /// Kept (query, key) pairs, averaged over index heads.
    pub fn kept_pairs(&self) -> u64 {
        let sequences = 0..self.spans.len();
        let each = sequences.flat_map(|b| (0..self.heads).map(move |h| self.kept_pairs_of(b, h)));
        each.sum::<u64>() / self.heads as u64
    }

    /// Kept (query, key) pairs of one sequence and index head.
    pub fn kept_pairs_of(&self, sequence: usize, head: usize) -> u64 {
        let span = &self.spans[sequence];
        let tiles = 0..span.query_len.div_ceil(QUERY_TILE);
        let row = |tile| self.row(sequence, head, tile);
        tiles
            .map(|tile| self.kept_of_tile(span, row(tile), tile * QUERY_TILE))
            .sum()
    }

    /// Kept pairs of the tile whose first query row is `first`.
    fn kept_of_tile(&self, span: &Span, row: Row<'_>, first: usize) -> u64 {
        let rows = first..(first + QUERY_TILE).min(span.query_len);
        if self.band.is_some() || self.visible != Visible::Causal {
            return rows.map(|i| self.kept_of_row(span, row, i)).sum();
        }
        let (n, start) = (rows.len() as u64, (span.offset() + first) as u64);
        // Without a band, row `i` of the tile sees the `min(end, start + i + 1) - from` keys of a range
        // that are not after its own: none, then one more with every row, then all.
        let of_range = |range: &[u32]| {
            let (from, end) = (u64::from(range[0]), u64::from(range[1]));
            let some = from.saturating_sub(start).min(n);
            let all = end.saturating_sub(start + 1).clamp(some, n);
            let partly: u64 = (some..all).map(|i| start + i + 1 - from).sum();
            partly + (n - all) * (end - from)
        };
        let ranges: u64 = row.ranges.chunks_exact(2).map(of_range).sum();
        ranges + n * row.columns.len() as u64
    }

    fn kept_of_row(&self, span: &Span, row: Row<'_>, i: usize) -> u64 {
        let p = span.offset() + i;
        let seen = self.visible.first(p);
        let clip = |lo: usize, hi: usize| -> u64 {
            let lo = lo.max(seen);
            row.ranges
                .chunks_exact(2)
                .map(|r| {
                    (r[1] as usize)
                        .min(hi)
                        .saturating_sub((r[0] as usize).max(lo)) as u64
                })
                .sum()
        };
        let in_ranges = match self.band {
            Some(b) if p < b.dense_from(span) => {
                let window = (p + 1).saturating_sub(b.window);
                clip(0, b.sink.min(p + 1)) + clip(window.max(b.sink), p + 1)
            }
            _ => clip(0, p + 1),
        };
        let hidden = row.columns.partition_point(|&c| (c as usize) < seen);
        in_ranges + (row.columns.len() - hidden) as u64
    }

    /// Kept pairs over all that the rows may see, 0 to 1.
    pub fn density(&self) -> f64 {
        self.kept_pairs() as f64 / visible::pairs(self.visible, &self.spans) as f64
    }
}
