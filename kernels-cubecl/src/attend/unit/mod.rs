//! The tier that needs nothing: scalar units, shared memory and barriers.

mod kernel;

pub(super) use kernel::attend_unit;

use super::{Problem, QUERY_TILE};

/// Keys per step.
const KEYS: usize = 32;
/// Units along keys, and along the head dimension.
const UNITS_X: usize = 8;
/// Query rows per unit, and keys per unit and step.
const PER_UNIT: usize = 4;
/// Vectors of 4 per chunk of the head dimension.
const CHUNK: usize = 8;
/// Row pitch of staged tiles in vectors: one more than a chunk, against bank conflicts.
const PITCH: usize = CHUNK + 1;

/// What a kernel of this tier is compiled for.
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

    /// Query rows of a cube.
    pub fn rows(&self) -> usize {
        self.units_y * PER_UNIT
    }

    /// Units of a cube.
    pub fn units(&self) -> usize {
        self.units_y * UNITS_X
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
