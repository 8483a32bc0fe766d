//! The tier that needs nothing: scalar units, shared memory and barriers.

mod kernel;

pub(super) use kernel::attend_unit;

use super::{Problem, QUERY_TILE};
use crate::{
    table::{Serves, Tiling, Walk},
    tile::unit::{KEYS, PITCH, UNITS_X, UnitTile},
};

/// The compile-time choices of a kernel of this tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UnitBlueprint {
    /// Units along query rows; a cube owns four times as many rows.
    pub units_y: usize,
    /// Head dimension, a multiple of 8.
    pub head_dim: usize,
    /// Query positions per tile.
    pub tile_tokens: usize,
    /// Ranges and columns come from the table; otherwise the range `[0, p]` is implicit.
    pub indexed: bool,
    /// Triangular's element rule applies.
    pub banded: bool,
    /// Heads have gates.
    pub gated: bool,
    /// Rows see a window of keys.
    pub windowed: bool,
}

impl UnitBlueprint {
    pub(super) fn new(problem: &Problem, units_y: usize) -> Self {
        Self {
            units_y,
            head_dim: problem.head_dim,
            tile_tokens: problem.index.map_or(QUERY_TILE, |i| i.tile_tokens),
            indexed: problem.index.is_some(),
            banded: problem.index.is_some_and(|i| i.band.is_some()),
            gated: problem.gated_heads.is_some(),
            windowed: problem.window().is_some(),
        }
    }

    fn tile(&self) -> UnitTile {
        UnitTile {
            units_y: self.units_y,
            head_dim: self.head_dim,
        }
    }

    fn tiling(&self) -> Tiling {
        Tiling {
            rows: self.rows(),
            tile_tokens: self.tile_tokens,
            serves: Serves::of(self.gated, self.indexed),
        }
    }

    fn walk(&self) -> Walk {
        Walk {
            keys: KEYS,
            indexed: self.indexed,
            columns: self.indexed,
            banded: self.banded,
            windowed: self.windowed,
        }
    }

    /// Query rows of a cube.
    pub fn rows(&self) -> usize {
        self.tile().rows()
    }

    /// Units of a cube.
    pub fn units(&self) -> usize {
        self.tile().units()
    }

    pub(super) fn units_x(&self) -> usize {
        UNITS_X
    }

    /// Shared memory of a cube.
    pub fn shared_bytes(&self) -> usize {
        let vectors = self.rows() * PITCH * 2 + KEYS * PITCH;
        (vectors * 4 + self.rows() * UNITS_X + KEYS) * 4
    }
}
