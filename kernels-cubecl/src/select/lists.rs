//! Where the kept columns and slashes of an index head stand: `[B * Hi, stride]` words, each row
//! `columns, slashes` (counts), then room for the most columns, then for the most slashes.

/// The room for kept columns and slashes, the same for every index head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListLayout {
    /// Most columns of an index head; at least what its rules allow.
    pub columns: usize,
    /// Most slash buckets of an index head; at least what its rules allow.
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
}
