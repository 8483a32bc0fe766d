//! Compile-time parameters of the kernel, and what follows from them.

use sparse_accelerate_contract::group::Split;

use super::SUMS;
use crate::select::{
    Shape,
    probe::ProbeBlueprint,
    product::{self, MMA_WIDTH},
};

/// Compile-time parameters of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::select::group) struct RowsBlueprint {
    /// Packed rows times keys of a step; one block of 16 rows a group.
    pub(in crate::select::group) probe: ProbeBlueprint,
    pub(in crate::select::group) split: Split,
    /// Query heads that share a choice.
    pub(super) sharing: usize,
}

impl RowsBlueprint {
    pub(super) fn tile(&self) -> product::Tile {
        self.probe.tile
    }

    /// Cubes that share the rows of a pack and split.
    pub(super) fn row_tiles(&self) -> usize {
        self.split.rows / self.tile().rows()
    }

    /// Cubes of all rows and splits.
    pub(in crate::select::group) fn cubes(&self, shape: &Shape) -> usize {
        let packs = shape.batch * shape.kv_heads * self.split.packs;
        packs * self.split.splits * self.row_tiles()
    }

    /// Blocks of 8 columns of the output that a group of units owns, of every chunk of staged values.
    pub(super) fn columns(&self) -> usize {
        let tile = self.tile();
        tile.chunk * tile.width() / 8 / tile.key_planes
    }

    /// Units that share a row.
    pub(super) fn sharers(&self) -> usize {
        self.tile().key_planes * 4
    }

    /// Rows stay staged, and keys and values have room of their own; otherwise they come in turn, some elements of every
    /// row at a time.
    pub(super) fn whole(&self) -> bool {
        self.tile().mma
    }

    /// Vectors of staged values beside the keys.
    pub(super) fn values(&self) -> usize {
        match self.whole() {
            true => self.tile().keys() * self.tile().pitch(),
            false => 1,
        }
    }

    /// Keys and values come by asynchronous copies.
    pub(super) fn asynchronous(&self) -> bool {
        self.tile().mma && self.probe.inline
    }

    /// Floats between the entries of the rows that different units of a row leave.
    pub(super) fn row_pitch(&self) -> usize {
        self.tile().rows() + 8
    }

    pub(super) fn exchange(&self) -> usize {
        (SUMS * self.sharers() + 1) * self.row_pitch()
    }

    /// Vectors of a row of probabilities that matrix units read.
    pub(super) fn wide_pitch(&self) -> usize {
        (self.tile().keys() / MMA_WIDTH) | 1
    }

    pub(super) fn wide(&self) -> usize {
        match self.tile().mma {
            true => self.tile().rows() * self.wide_pitch(),
            false => 1,
        }
    }

    /// Floats of a row of probabilities that scalar units read.
    pub(super) fn narrow_pitch(&self) -> usize {
        self.tile().keys() + 1
    }

    pub(super) fn narrow(&self) -> usize {
        match self.tile().mma {
            true => 1,
            false => self.tile().rows() * self.narrow_pitch(),
        }
    }

    /// Shared memory of a cube.
    pub(super) fn shared_bytes(&self) -> usize {
        let tile = self.tile();
        tile.staged_bytes(tile.rows() + tile.keys())
            + (self.values() + self.wide()) * 16
            + (self.narrow() + self.exchange()) * 4
    }
}
