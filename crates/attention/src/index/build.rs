//! Index builders on the host: Triangular, and Interval-Slash and Block-Cluster from given sets.
//!
//! Choosing those sets from the input is the selectors' work; a builder only turns a choice into
//! aligned, merged, clipped ranges and disjoint columns.

use sparse_accelerate_contract::{IndexRow, RANGE_WORDS, ROW_WORDS};

use crate::{
    error::AttentionError,
    index::{Band, QUERY_TILE, RANGE_ALIGN, TileIndex},
    pattern::Triangular,
    span::{self, Span},
    visible::Visible,
};

/// Builds a [`TileIndex`] row by row; sorts, aligns, merges and clips what it is given.
#[derive(Debug)]
pub struct Builder {
    index: TileIndex,
}

impl Builder {
    /// An index with `heads` index heads over the given sequences, every row still empty.
    ///
    /// # Errors
    /// Spans that are empty or contradict themselves; zero heads.
    pub fn new(spans: &[Span], heads: usize, band: Option<Band>) -> Result<Self, AttentionError> {
        span::validate(spans)?;
        if heads == 0 {
            return Err(AttentionError::Setting {
                op: "index",
                field: "heads",
                got: "0".into(),
                limit: "at least 1".into(),
                hint: "use 1 for an index that all heads share",
            });
        }
        let tiles = spans
            .iter()
            .map(|s| s.query_len.div_ceil(QUERY_TILE))
            .max()
            .unwrap_or(1);
        Ok(Self {
            index: TileIndex {
                spans: spans.to_vec(),
                heads,
                tiles,
                band,
                visible: Visible::Causal,
                rows: vec![0; spans.len() * heads * tiles * ROW_WORDS],
                ranges: Vec::new(),
                columns: Vec::new(),
            },
        })
    }

    /// Absolute positions `[first, last]` of a tile's query rows; `None` past the sequence's end.
    pub fn tile_positions(&self, sequence: usize, tile: usize) -> Option<(usize, usize)> {
        let span = &self.index.spans[sequence];
        let first = tile * QUERY_TILE;
        let last = (first + QUERY_TILE).min(span.query_len);
        (first < last).then(|| (span.offset() + first, span.offset() + last - 1))
    }

    /// Sets one row from key ranges `[start, end)` and columns, in any order, overlapping or not.
    ///
    /// Positions count from the sequence's first token. Tiles of 64 query rows begin with the chunk's first
    /// row, not at multiples of 64: a mask of square blocks is exact only where the chunk begins at a
    /// multiple of 64, see [`Builder::tile_positions`]. Starts are rounded down to [`RANGE_ALIGN`]; ends past
    /// the tile's last row are cut there, for no row sees what comes after it; the tile's own keys are always
    /// added, so that no row of queries is ever empty. A tile past the end of a shorter sequence of the batch
    /// is left as it is.
    ///
    /// # Errors
    /// [`AttentionError::Setting`] for a sequence, head or tile that is not there, a range whose end is before
    /// its start, or a range or column that begins past the sequence's last key. The row is then unchanged.
    pub fn set(
        &mut self,
        (sequence, head, tile): (usize, usize, usize),
        ranges: impl IntoIterator<Item = (usize, usize)>,
        columns: impl IntoIterator<Item = usize>,
    ) -> Result<(), AttentionError> {
        let index = &self.index;
        for (field, got, count) in [
            ("sequence", sequence, index.spans.len()),
            ("head", head, index.heads),
            ("tile", tile, index.tiles),
        ] {
            if got >= count {
                return Err(refused(field, got.to_string(), format!("below {count}")));
            }
        }
        let keys = index.spans[sequence].kv_len;
        let Some((first, last)) = self.tile_positions(sequence, tile) else {
            return Ok(());
        };
        let ranges: Vec<(usize, usize)> = ranges.into_iter().collect();
        let columns: Vec<usize> = columns.into_iter().collect();
        for &(start, end) in &ranges {
            if start > end || (start < end && start >= keys) {
                let limit = format!("start <= end and start < {keys}, the keys of the sequence");
                return Err(refused("range", format!("[{start}, {end})"), limit));
            }
        }
        if let Some(column) = columns.iter().find(|column| **column >= keys) {
            let limit = format!("below {keys}, the keys of the sequence");
            return Err(refused("column", column.to_string(), limit));
        }
        let mut wanted: Vec<(usize, usize)> = ranges
            .into_iter()
            .filter(|(start, end)| start < end)
            .chain([(first, last + 1)])
            .map(|(s, e)| (s / RANGE_ALIGN * RANGE_ALIGN, e.min(last + 1)))
            .filter(|(s, e)| s < e)
            .collect();
        wanted.sort_unstable();

        let flat = (sequence * self.index.heads + head) * self.index.tiles + tile;
        let (range_start, column_start) = (
            self.index.ranges.len() / RANGE_WORDS,
            self.index.columns.len(),
        );
        let out = &mut self.index.ranges;
        for (s, e) in wanted {
            let has_own = out.len() > range_start * RANGE_WORDS;
            match out.last_mut() {
                // A gap shorter than the alignment would leave the next start inside the last range.
                Some(end) if has_own && s <= *end as usize => *end = (*end).max(e as u32),
                _ => out.extend([s as u32, e as u32]),
            }
        }
        let own = &out[range_start * RANGE_WORDS..];
        let mut columns: Vec<u32> = columns
            .into_iter()
            .filter(|&c| c < first)
            .map(|c| c as u32)
            .filter(|&c| !covered(own, c))
            .collect();
        columns.sort_unstable();
        columns.dedup();
        let row = IndexRow {
            ranges_at: range_start as u32,
            ranges: (own.len() / RANGE_WORDS) as u32,
            columns_at: column_start as u32,
            columns: columns.len() as u32,
        };
        self.index.columns.extend(columns);
        self.index.rows[flat * ROW_WORDS..][..ROW_WORDS].copy_from_slice(&row.words());
        Ok(())
    }

    /// Ends the build and checks the invariants.
    ///
    /// # Errors
    /// [`AttentionError::Index`] if a row was never set.
    pub fn finish(self) -> Result<TileIndex, AttentionError> {
        self.index.validate()?;
        Ok(self.index)
    }

    /// The index as it stands, unchecked.
    pub(super) fn into_unchecked(self) -> TileIndex {
        self.index
    }

    fn set_all(
        mut self,
        mut ranges: impl FnMut(&Span, usize, usize, usize) -> Vec<(usize, usize)>,
        mut columns: impl FnMut(usize) -> Vec<usize>,
    ) -> Result<TileIndex, AttentionError> {
        for b in 0..self.index.spans.len() {
            for h in 0..self.index.heads {
                for t in 0..self.index.tiles {
                    if let Some((first, last)) = self.tile_positions(b, t) {
                        let span = self.index.spans[b];
                        let columns = columns(h).into_iter().filter(|c| *c < span.kv_len);
                        self.set((b, h, t), ranges(&span, h, first, last), columns)?;
                    }
                }
            }
        }
        self.finish()
    }
}

fn refused(field: &'static str, got: String, limit: String) -> AttentionError {
    AttentionError::Setting {
        op: "index builder",
        field,
        got,
        limit,
        hint: "positions count from the sequence's first token",
    }
}

/// Tells whether a key lies in one of the ascending ranges.
fn covered(ranges: &[u32], key: u32) -> bool {
    let (pairs, _) = ranges.as_chunks::<2>();
    let at = pairs.partition_point(|r| r[1] <= key);
    pairs.get(at).is_some_and(|r| r[0] <= key)
}

/// An index that holds every causal key: the identity against implicit (dense) ranges.
///
/// # Errors
/// As [`Builder::new`].
pub fn full(spans: &[Span]) -> Result<TileIndex, AttentionError> {
    Builder::new(spans, 1, None)?.set_all(|_, _, _, last| vec![(0, last + 1)], |_| Vec::new())
}

/// Triangular, one index head for all: sinks and window as ranges, exact per element by its [`Band`].
///
/// # Errors
/// As [`Builder::new`]; a window of 0.
pub fn triangular(spans: &[Span], pattern: &Triangular) -> Result<TileIndex, AttentionError> {
    crate::Pattern::Triangular(*pattern).validate()?;
    let band = Band {
        sink: pattern.sink,
        window: pattern.window,
        last: pattern.last,
    };
    Builder::new(spans, 1, Some(band))?.set_all(
        |span, _, first, last| {
            if last >= band.dense_from(span) {
                return vec![(0, last + 1)];
            }
            let window = (first + 1).saturating_sub(band.window);
            vec![(0, band.sink.min(last + 1)), (window, last + 1)]
        },
        |_| Vec::new(),
    )
}

/// Interval-Slash from given sets, per index head: `columns[h]` are key positions, `offsets[h]`
/// distances to the diagonal. A slash becomes, for the tile of rows `[a, b]`, the keys
/// `[a - offset, b - offset]`, rounded outwards: the kept set is a superset of the exact one.
///
/// # Errors
/// As [`Builder::new`]; the two lists differ in length.
pub fn interval_slash(
    spans: &[Span],
    columns: &[Vec<usize>],
    offsets: &[Vec<usize>],
) -> Result<TileIndex, AttentionError> {
    if columns.len() != offsets.len() {
        return Err(AttentionError::Shape {
            op: "index",
            what: "the number of offset lists",
            got: offsets.len().to_string(),
            expected: columns.len().to_string(),
            hint: "give one list of columns and one of offsets per index head",
        });
    }
    Builder::new(spans, columns.len(), None)?.set_all(
        |_, h, first, last| {
            let slash = |&o: &usize| (o <= last).then(|| (first.saturating_sub(o), last - o + 1));
            offsets[h].iter().filter_map(slash).collect()
        },
        |h| columns[h].clone(),
    )
}

/// Block-Cluster from a given choice: `keep(head, query_block, key_block)` on square blocks of
/// `block` tokens at absolute positions. `block` must be a multiple of [`QUERY_TILE`] and every
/// span's offset a multiple of it, so that a tile lies in one query block.
///
/// # Errors
/// As [`Builder::new`]; a block size or an offset off that grid.
pub fn block_cluster(
    spans: &[Span],
    heads: usize,
    block: usize,
    keep: impl Fn(usize, usize, usize) -> bool,
) -> Result<TileIndex, AttentionError> {
    let off_grid = |field, got: usize, limit| AttentionError::Setting {
        op: "index",
        field,
        got: got.to_string(),
        limit: format!("a multiple of {limit}"),
        hint: "query tiles must not straddle two query blocks",
    };
    if block == 0 || !block.is_multiple_of(QUERY_TILE) {
        return Err(off_grid("block", block, QUERY_TILE));
    }
    let builder = Builder::new(spans, heads, None)?;
    if let Some(span) = spans
        .iter()
        .find(|s| !s.offset().is_multiple_of(QUERY_TILE))
    {
        return Err(off_grid("offset", span.offset(), QUERY_TILE));
    }
    builder.set_all(
        |_, h, first, last| {
            let kept = |&kb: &usize| keep(h, first / block, kb);
            let range = |kb: usize| (kb * block, (kb + 1) * block);
            (0..=last / block).filter(kept).map(range).collect()
        },
        |_| Vec::new(),
    )
}
