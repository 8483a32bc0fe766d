//! Exact attention of a few rows: which keys, and which distances, the heads of a chunk look at.
//!
//! With `p(i, j) = exp(scale q_i . k_j - lse_i)` of the probe rows `i` of a sequence and all keys
//! `j <= i` that they see, "local" keys of the head's rule left out:
//!
//! * `lse` `[B, Hq, 128]`: natural log-sum-exp of every probe row over all keys that it sees, 0 for none;
//! * `columns` `[B, Hq, 2, L']`: mean of `p(i, j)` over the rows `i` of a group, for every key `j`;
//! * `slashes` `[B, Hq, 2, SB]`: `sum_i round(2^20 sum_j p(i, j))` over the rows `i` of a group, over the keys of every bucket of 16
//!   distances `i - j` and every tile of 128 keys.
//!
//! Probe rows of a sequence with `n` new rows: group 0 is its last 64 rows (all where it has fewer),
//! group 1 the rows `(2 k + 1) n / 128`, `k < 64`, where it has 128 rows. Vertical and slash lines come
//! from MInference (arXiv 2407.02490), whose estimate takes the last 64 queries alone.
//!
//! Two passes over the keys, each with one cube per tile of 128 keys: K is staged once and meets the
//! probe rows of all query heads that share it. The first pass leaves every row's maximum and sum of
//! every tile, which a merge turns into the log-sum-exp; the second adds up. Only integers are added
//! across cubes, so equal inputs give equal bits.

pub(super) mod kernel;
mod launch;
mod merge;
mod parts;
mod plan;
pub(super) mod rows;
mod shares;

pub use launch::{Tensors, launch};
pub use plan::{Plan, plans, prepare};

use super::{BLOCK, GRANULE, PROBES, product::Tile};

/// Rows and shares of a row's keys that one cube of the merge takes.
const MERGED: usize = 16;

/// Compile-time parameters of the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProbeBlueprint {
    /// 128 keys (of sampled rows a step of keys), and as many packed rows as fit: row `r` is probe `r / slots` of head `r % slots`.
    pub tile: Tile,
    /// Query heads of a cube, a power of two, at most 8: then all rows of a unit are of one head.
    pub slots: usize,
    /// The exponential is an instruction of inline PTX.
    pub inline: bool,
    /// Rows that are sampled in place of the probe rows, a power of two; 0 for the probe rows.
    pub samples: usize,
}

impl ProbeBlueprint {
    /// Probe rows of a tile.
    fn probes(&self) -> usize {
        self.tile.rows() / self.slots
    }

    /// Row tiles that hold all probe rows.
    fn row_tiles(&self) -> usize {
        PROBES / self.probes()
    }

    /// Granules of a group's keys.
    fn granules(&self) -> usize {
        self.tile.group_keys() / GRANULE
    }

    /// Floats between the entries of the rows that different units of a row leave: neighbours fall into
    /// different banks.
    fn row_pitch(&self) -> usize {
        self.tile.rows() + 8
    }

    /// Floats through which units meet: parts of log-sum-exps, of slashes, of columns.
    fn exchange(&self) -> usize {
        let parts = 2 * self.tile.key_planes * 4 * self.row_pitch();
        let slashes = self.tile.key_planes * (self.granules() + 1) * 4 * self.row_pitch();
        let columns = self.tile.row_planes * 8 * self.column_pitch();
        parts.max(slashes).max(columns)
    }

    /// Floats from one unit row's column sums to the next.
    fn column_pitch(&self) -> usize {
        BLOCK + 8
    }

    /// Shared memory of a cube.
    pub fn shared_bytes(&self) -> usize {
        self.tile.staged_bytes(self.tile.rows() + BLOCK) + self.exchange() * 4
    }
}
