//! The matrix-unit tier: `mma` m16n8k16 with operands held in registers.
//!
//! One cube owns `rows` packed query rows of one query tile and walks the tile's ranges, then its
//! columns, `keys` keys a step. A plane owns `16 * m_tiles` of the rows for good, so softmax needs no
//! shared memory: four units of a plane share a row. Scores leave the matrix unit in the layout in
//! which it takes its left operand, so probabilities go back in without touching memory.

mod copy;
mod kernel;
mod tile;
mod walk;

pub(super) use kernel::attend_mma;

use cubecl::{
    features::{MmaConfig, Plane},
    ir::{DeviceProperties, ElemType, FloatKind},
};

use super::{Problem, QUERY_TILE};

/// Rows, columns and depth of one matrix instruction.
const M: usize = 16;
const N8: usize = 8;
const K16: usize = 16;
/// Units of a plane; the register layouts of the instruction are defined for it.
const PLANE: usize = 32;
/// Elements of a 16-byte vector of f16 or bf16.
pub(super) const VECTOR: usize = 8;

/// What a kernel of this tier is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MmaBlueprint {
    /// Head dimension, a multiple of 8.
    pub head_dim: usize,
    /// Planes of a cube.
    pub planes: usize,
    /// Blocks of 16 rows that a plane owns: two halve the reads of K and V from shared memory.
    pub m_tiles: usize,
    /// Keys per step, a multiple of 16.
    pub keys: usize,
    /// Q stays in registers and its shared memory is reused; otherwise it is read again every step.
    pub query_in_registers: bool,
    /// Asynchronous copies and inline PTX: K and V of the next step land while this one computes.
    pub asynchronous: bool,
    /// Query positions per row of the index (or per tile, where there is none).
    pub tile_tokens: usize,
    /// Ranges and columns come from the table; otherwise the range `[0, p]` is implicit.
    pub indexed: bool,
    /// The index may have columns.
    pub columns: bool,
    /// Triangular's element rule applies.
    pub banded: bool,
}

impl MmaBlueprint {
    /// Query rows of a cube.
    pub fn rows(&self) -> usize {
        self.planes * self.m_tiles * M
    }

    /// Units of a cube.
    pub fn units(&self) -> usize {
        self.planes * PLANE
    }

    /// Copies of the K and V tiles.
    pub fn stages(&self) -> usize {
        if self.asynchronous { 2 } else { 1 }
    }

    /// Vectors of a row.
    fn vectors(&self) -> usize {
        self.head_dim / VECTOR
    }

    /// Vectors of a row padded to the depth of the instruction.
    fn padded(&self) -> usize {
        self.head_dim.next_multiple_of(K16) / VECTOR
    }

    /// Vectors between rows of a staged tile; odd, so that eight rows fall into different banks.
    fn pitch(&self) -> usize {
        self.padded() + 1
    }

    /// Vectors of one staged K or V tile.
    fn tile(&self) -> usize {
        self.keys * self.pitch()
    }

    /// Where the first K tile begins in shared memory, in vectors.
    fn kv_at(&self) -> usize {
        match self.query_in_registers {
            true => 0,
            false => self.rows() * self.pitch(),
        }
    }

    /// All of shared memory but the column positions, in vectors.
    fn shared_vectors(&self) -> usize {
        (self.kv_at() + self.stages() * 2 * self.tile()).max(self.rows() * self.pitch())
    }

    /// Shared memory of a cube.
    pub fn shared_bytes(&self) -> usize {
        let positions = if self.columns { 2 * self.keys * 4 } else { 0 };
        self.shared_vectors() * 16 + positions
    }

    /// Depth steps of the score product.
    fn depth(&self) -> usize {
        self.padded() / 2
    }

    /// Blocks of 8 keys in a step.
    fn key_tiles(&self) -> usize {
        self.keys / N8
    }

    /// Blocks of 8 output columns, rounded up to pairs.
    fn out_tiles(&self) -> usize {
        self.padded()
    }
}

/// The blueprints of this tier that serve a problem, best first; none if the device lacks a feature.
pub(super) fn blueprints(
    problem: &Problem,
    elem: ElemType,
    device: &DeviceProperties,
) -> Vec<MmaBlueprint> {
    let config = MmaConfig {
        a_type: elem,
        b_type: elem,
        cd_type: ElemType::Float(FloatKind::F32),
        m: M as u32,
        n: N8 as u32,
        k: K16 as u32,
    };
    let (features, hardware) = (&device.features, &device.hardware);
    let served = features.matmul.mma.contains(&config)
        && features.matmul.ldmatrix.contains(&elem)
        && features.plane.contains(Plane::Ops)
        && (hardware.plane_size_min, hardware.plane_size_max) == (PLANE as u32, PLANE as u32);
    if !served {
        return Vec::new();
    }
    let index = problem.index;
    let base = MmaBlueprint {
        head_dim: problem.head_dim,
        planes: 4,
        m_tiles: 1,
        keys: 64,
        query_in_registers: true,
        asynchronous: features.copy_async,
        tile_tokens: index.map_or(QUERY_TILE, |i| i.tile_tokens),
        indexed: index.is_some(),
        columns: index.is_some_and(|i| i.columns),
        banded: index.is_some_and(|i| i.band.is_some()),
    };
    vec![base]
}
