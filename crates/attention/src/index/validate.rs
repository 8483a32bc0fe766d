//! The index's invariants, checked once on the host before anything reaches a device.

use crate::{
    error::AttentionError,
    index::{QUERY_TILE, RANGE_ALIGN, TileIndex},
};

impl TileIndex {
    /// Checks every invariant of the [module documentation](crate::index).
    ///
    /// # Errors
    /// [`AttentionError::Index`] with the first row that breaks one, and the values.
    pub fn validate(&self) -> Result<(), AttentionError> {
        for flat in 0..self.row_count() {
            let tile = flat % self.tiles;
            let span = &self.spans[flat / self.tiles / self.heads];
            self.check(flat, span.offset(), tile * QUERY_TILE, span.query_len)
                .map_err(|reason| AttentionError::Index { row: flat, reason })?;
        }
        Ok(())
    }

    fn check(&self, flat: usize, offset: usize, row: usize, len: usize) -> Result<(), String> {
        let r: [usize; 4] = std::array::from_fn(|i| self.rows[flat * 4 + i] as usize);
        if (r[0] + r[1]) * 2 > self.ranges.len() || r[2] + r[3] > self.columns.len() {
            return Err(format!("the row {r:?} points outside its tables"));
        }
        let entry = self.row_at(flat);
        if row >= len {
            return match entry.ranges.len() + entry.columns.len() {
                0 => Ok(()),
                n => Err(format!(
                    "{n} entries for a tile past the sequence's {len} rows"
                )),
            };
        }
        let (first, last) = (offset + row, offset + (row + QUERY_TILE).min(len) - 1);

        let mut end = 0;
        for (i, range) in entry.ranges.chunks_exact(2).enumerate() {
            let (s, e) = (range[0] as usize, range[1] as usize);
            if s >= e || (i > 0 && s <= end) {
                return Err(format!(
                    "range [{s}, {e}) is empty or not after the end {end}"
                ));
            }
            if s % RANGE_ALIGN != 0 {
                return Err(format!(
                    "range start {s} is not a multiple of {RANGE_ALIGN}"
                ));
            }
            if e > last + 1 {
                return Err(format!(
                    "range end {e} passes the tile's last position {last}"
                ));
            }
            end = e;
        }
        if entry.ranges.is_empty() {
            let (head, sequence) = (
                flat / self.tiles % self.heads,
                flat / self.tiles / self.heads,
            );
            return Err(format!(
                "tile {} of head {head} of sequence {sequence} has no ranges; set every tile",
                flat % self.tiles
            ));
        }
        // The last range holds the whole diagonal, so every query row sees at least its own key.
        match entry.ranges.last_chunk::<2>() {
            Some(&[s, e]) if s as usize <= first && e as usize == last + 1 => {}
            other => return Err(format!("the last range {other:?} misses [{first}, {last}]")),
        }
        if !entry.columns.windows(2).all(|w| w[0] < w[1]) {
            return Err("columns are not strictly ascending".into());
        }
        let misplaced = |&&c: &&u32| {
            c as usize >= first || entry.ranges.chunks_exact(2).any(|r| r[0] <= c && c < r[1])
        };
        match entry.columns.iter().find(misplaced) {
            Some(c) => Err(format!(
                "column {c} lies in a range or is not before {first}"
            )),
            None => Ok(()),
        }
    }
}
