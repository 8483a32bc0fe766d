//! Kept columns and slashes of an index head: `[B * Hi, stride]` words, each row two counts, then room for
//! the most columns, then for the most slash buckets. Both lists ascend.

/// The room for kept columns and slashes, the same for every index head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListLayout {
    /// Most columns of an index head; at least what its rules allow.
    pub columns: usize,
    /// Most slash buckets of an index head; at least what its rules allow.
    pub slashes: usize,
}

impl ListLayout {
    /// Word of a row that counts its columns.
    pub const COLUMNS: usize = 0;
    /// Word of a row that counts its slash buckets.
    pub const SLASHES: usize = 1;
    /// First word of the columns in a row.
    pub const COLUMNS_AT: usize = 2;

    /// Gives the first word of the slash buckets in a row.
    pub fn slashes_at(&self) -> usize {
        Self::COLUMNS_AT + self.columns
    }

    /// Counts the words of a row.
    pub fn stride(&self) -> usize {
        self.slashes_at() + self.slashes
    }

    /// Gives the columns and the slash buckets of a row.
    pub fn read<'a>(&self, row: &'a [u32]) -> (&'a [u32], &'a [u32]) {
        let (columns, slashes) = row[Self::COLUMNS_AT..].split_at(self.columns);
        (
            &columns[..(row[Self::COLUMNS] as usize).min(self.columns)],
            &slashes[..(row[Self::SLASHES] as usize).min(self.slashes)],
        )
    }
}
