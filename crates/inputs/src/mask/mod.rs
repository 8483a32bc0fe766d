//! Block masks: which key blocks each query block keeps, per head.

mod random;

use rayon::prelude::*;

pub use random::random_block_mask;

/// Kept key blocks of every head and row of query blocks, as sorted lists in one array.
///
/// Row `r` holds the queries from `r * query_block`, column `c` the keys from `c * key_block`. A
/// kept block is seen where it is causal: query `i` sees key `j` of it if `j <= i`. Methods panic
/// on a head or row outside the mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockMask {
    heads: usize,
    rows: usize,
    columns: usize,
    query_block: usize,
    key_block: usize,
    offsets: Vec<u32>,
    kept: Vec<u32>,
}

impl BlockMask {
    /// Query heads.
    #[must_use]
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Query blocks of a head.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Key blocks of a head.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Queries of a row.
    #[must_use]
    pub fn query_block(&self) -> usize {
        self.query_block
    }

    /// Keys of a column.
    #[must_use]
    pub fn key_block(&self) -> usize {
        self.key_block
    }

    /// `heads * rows + 1` starts into [`BlockMask::kept_columns`]; row `r` of head `h` is
    /// number `h * rows + r`.
    #[must_use]
    pub fn offsets(&self) -> &[u32] {
        &self.offsets
    }

    /// Kept columns of all rows, one row after another.
    #[must_use]
    pub fn kept_columns(&self) -> &[u32] {
        &self.kept
    }

    /// Kept columns of one row, rising.
    #[must_use]
    pub fn kept(&self, head: usize, row: usize) -> &[u32] {
        assert!(head < self.heads && row < self.rows, "row {head}, {row}");
        let index = head * self.rows + row;
        &self.kept[self.offsets[index] as usize..self.offsets[index + 1] as usize]
    }

    /// Returns true if query `i` sees key `j`.
    #[must_use]
    pub fn sees(&self, head: usize, i: usize, j: usize) -> bool {
        let column = (j / self.key_block) as u32;
        j <= i
            && self
                .kept(head, i / self.query_block)
                .binary_search(&column)
                .is_ok()
    }

    /// (query, key) pairs seen by one head, exactly.
    #[must_use]
    pub fn pairs(&self, head: usize) -> u64 {
        (0..self.rows)
            .into_par_iter()
            .map(|row| {
                let columns = self.kept(head, row).iter();
                columns.map(|&c| self.block_pairs(row, c)).sum::<u64>()
            })
            .sum()
    }

    fn block_pairs(&self, row: usize, column: u32) -> u64 {
        let queries = row * self.query_block..(row + 1) * self.query_block;
        let first_key = column as usize * self.key_block;
        if first_key + self.key_block <= queries.start + 1 {
            return (self.query_block * self.key_block) as u64;
        }
        queries
            .map(|i| (i + 1).saturating_sub(first_key).min(self.key_block) as u64)
            .sum()
    }

    /// Pairs seen over all causal pairs, of all heads.
    #[must_use]
    pub fn density(&self) -> f64 {
        let len = (self.rows * self.query_block) as u64;
        let seen: u64 = (0..self.heads).map(|head| self.pairs(head)).sum();
        seen as f64 / (self.heads as u64 * (len * (len + 1) / 2)) as f64
    }

    /// Kept blocks over all blocks with a causal pair: the density that tables of block-sparse
    /// kernels give. Blocks on the diagonal count whole.
    #[must_use]
    pub fn block_density(&self) -> f64 {
        let causal: usize = (0..self.rows)
            .map(|row| last_column(row, self.query_block, self.key_block) + 1)
            .sum();
        self.kept.len() as f64 / (self.heads * causal) as f64
    }
}

/// The last column that a row may see: the one with the row's last position.
fn last_column(row: usize, query_block: usize, key_block: usize) -> usize {
    ((row + 1) * query_block - 1) / key_block
}

#[cfg(test)]
mod tests;
