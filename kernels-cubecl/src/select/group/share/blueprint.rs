//! Compile-time parameters of the kernel, and what follows from them.
//!
//! The columns of a group of units are those of whole query tiles, [`ShareBlueprint::stride`] each, some of them
//! nobody's. Of a row of the products a unit holds the columns `8 j + 2 u` and the next, `u` its place among four. So
//! that these are all parts of a head, the columns of neighbouring tiles are mixed: of the four tiles of a head alone
//! every unit holds one.

use sparse_accelerate_contract::group::BINS;

use super::{BOUNDS, COARSE};
use crate::select::product;

/// Compile-time parameters of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::select::group) struct ShareBlueprint {
    /// Rows are mean keys, keys are mean queries. A group's keys are those of whole query tiles.
    pub(in crate::select::group) tile: product::Tile,
    /// Query heads that share a choice.
    pub(in crate::select::group) heads: usize,
    /// Mean queries of a query tile and head.
    pub(in crate::select::group) parts: usize,
    /// The exponential and copies are instructions of inline PTX.
    pub(in crate::select::group) inline: bool,
}

impl ShareBlueprint {
    /// Columns of a query tile.
    pub(super) fn stride(&self) -> usize {
        stride(self.heads * self.parts)
    }

    /// Columns of a query tile that are somebody's.
    pub(super) fn used(&self) -> usize {
        self.heads * self.parts
    }

    /// Some columns are nobody's.
    pub(super) fn padded(&self) -> bool {
        self.stride() > self.used()
    }

    /// Columns of the tiles that are mixed.
    pub(super) fn mixed(&self) -> usize {
        self.stride().max(32).min(self.tile.group_keys())
    }

    /// Sets of mixed tiles of a group of units.
    pub(super) fn sets(&self) -> usize {
        self.tile.group_keys() / self.mixed()
    }

    /// Query tiles of a set.
    pub(super) fn set_tiles(&self) -> usize {
        self.mixed() / self.stride()
    }

    /// Neighbouring units that hold a tile's columns of a row.
    pub(super) fn holders(&self) -> usize {
        4 / self.set_tiles()
    }

    /// Columns of a row that a unit holds, all of one tile.
    pub(super) fn values(&self) -> usize {
        self.mixed() / 4
    }

    /// Units that share a head of a row.
    pub(super) fn sharing(&self) -> usize {
        self.parts.div_ceil(self.values())
    }

    /// Query tiles of a cube.
    pub(in crate::select::group) fn tiles(&self) -> usize {
        self.tile.keys() / self.stride()
    }

    /// Rows of a step that a unit holds.
    pub(super) fn own_rows(&self) -> usize {
        2 * self.tile.row_tiles
    }

    /// Units that share a column.
    pub(super) fn sharers(&self) -> usize {
        self.tile.row_planes * 8
    }

    /// Floats from what a unit of a column leaves for the others to what the next one does.
    pub(super) fn column_pitch(&self) -> usize {
        self.tile.keys() + 4
    }

    /// Floats that units exchange: of their columns, and of the rows that they do not hold alone.
    pub(super) fn exchange(&self) -> usize {
        let columns = self.sharers() * self.column_pitch();
        match self.holders() {
            1 => columns,
            _ => columns.max(self.sets() * self.own_rows() * self.tile.units()),
        }
    }

    /// Vectors of a step's mean keys that a unit stages.
    pub(super) fn staged(&self) -> usize {
        (self.tile.rows() * self.tile.chunk).div_ceil(self.tile.units())
    }

    /// The mean keys of a step come by asynchronous copies while those of the step before are multiplied.
    pub(super) fn asynchronous(&self) -> bool {
        self.tile.mma && self.inline
    }

    /// Vectors of a step's mean keys.
    pub(super) fn step(&self) -> usize {
        self.tile.rows() * self.tile.pitch()
    }

    /// Vectors of the steps that are staged at once.
    pub(super) fn rows(&self) -> usize {
        self.step() * if self.asynchronous() { 2 } else { 1 }
    }

    /// Vectors of the staged columns.
    pub(super) fn columns(&self) -> usize {
        self.tile.keys() * self.tile.whole_pitch()
    }

    /// Shared memory of a cube.
    pub(in crate::select::group) fn shared_bytes(&self) -> usize {
        let words =
            self.exchange() + 2 * self.tile.keys() + self.tiles() * (BINS + 1 + BOUNDS + COARSE);
        (self.rows() + self.columns()) * 16 + words * size_of::<u32>()
    }
}

/// Columns of a query tile, of which `used` are somebody's.
pub(in crate::select::group) fn stride(used: usize) -> usize {
    used.next_power_of_two().max(8)
}
