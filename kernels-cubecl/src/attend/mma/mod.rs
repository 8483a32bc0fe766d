//! The matrix-unit tier: `mma` m16n8k16 with operands held in registers, or `wgmma` where there is that.
//!
//! One cube owns `rows` packed query rows of one query tile and walks the tile's ranges, then its
//! columns, `keys` keys a step. A plane owns `16 * m_tiles` of the rows for good, so softmax needs no
//! shared memory: four units of a plane share a row. Scores leave the matrix unit in the layout in
//! which it takes its left operand, so probabilities go back in without touching memory.

// A comptime condition is an `if` of its own: it decides what is compiled; device code has no
// `is_multiple_of`.
#![allow(clippy::collapsible_if, clippy::manual_is_multiple_of)]

pub(crate) mod copy;
mod hopper;
mod kernel;
mod pipeline;
pub(crate) mod rows;
pub(crate) mod tile;

pub(super) use kernel::attend_mma;
pub(crate) use tile::exp2;

use cubecl::{
    features::{MmaConfig, Plane, Tma},
    ir::{DeviceProperties, ElemType, FloatKind},
};

use super::Problem;
use crate::table::{Serves, Tiling, Walk};

/// Rows, columns and depth of one matrix instruction.
pub(crate) const M: usize = 16;
pub(crate) const N8: usize = 8;
const K16: usize = 16;
/// Units of a plane; the register layouts of the instruction are defined for it.
pub(crate) const PLANE: usize = 32;
/// Elements of a 16-byte vector of f16 or bf16.
pub(crate) const VECTOR: usize = 8;

/// The matrix instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Instruction {
    /// `mma` m16n8k16 of one plane, compute capability 8.0 and later.
    Mma,
    /// `wgmma` of four planes, compute capability 9.0 alone.
    Wgmma,
}

/// From here on three warpgroups are better than one (between the measured 8K and 32K).
const MANY_KEYS: usize = 16384;
/// Query positions per tile where there is no index.
const DENSE_TOKENS: usize = 128;

/// The compile-time choices of a kernel of this tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MmaBlueprint {
    /// Head dimension, a multiple of 8.
    pub head_dim: usize,
    /// The matrix instruction.
    pub instruction: Instruction,
    /// The elements are f16, not bf16.
    pub half: bool,
    /// Planes of a cube.
    pub planes: usize,
    /// Blocks of 16 rows that a plane owns: two halve the reads of K and V from shared memory.
    pub m_tiles: usize,
    /// Keys per step, a multiple of 16; 64 for `wgmma`.
    pub keys: usize,
    /// Q stays in registers and its shared memory is reused; otherwise it is read again every step.
    pub query_in_registers: bool,
    /// Asynchronous copies and inline PTX: K and V of the next step land while this one computes.
    pub asynchronous: bool,
    /// With asynchronous copies: V of a step is copied during its own score product, into one tile.
    pub late_values: bool,
    /// Query positions per row of the index (or per tile, where there is none).
    pub tile_tokens: usize,
    /// Ranges and columns come from the table; otherwise the range `[0, p]` is implicit.
    pub indexed: bool,
    /// The index may have columns.
    pub columns: bool,
    /// Triangular's element rule applies.
    pub banded: bool,
    /// Heads have gates.
    pub gated: bool,
    /// Rows see a window of keys.
    pub windowed: bool,
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

    fn tiling(&self) -> Tiling {
        Tiling {
            rows: self.rows(),
            tile_tokens: self.tile_tokens,
            serves: Serves::of(self.gated, self.indexed),
        }
    }

    fn walk(&self) -> Walk {
        Walk {
            keys: self.keys,
            indexed: self.indexed,
            columns: self.columns,
            banded: self.banded,
            windowed: self.windowed,
        }
    }

    /// K tiles in shared memory.
    fn key_stages(&self) -> usize {
        if self.asynchronous { 2 } else { 1 }
    }

    /// V tiles in shared memory: two, or one that is fetched while the scores are computed.
    fn value_stages(&self) -> usize {
        if self.late_values {
            1
        } else {
            self.key_stages()
        }
    }

    /// First vector of the K tile of a stage.
    fn key_at(&self, stage: usize) -> usize {
        self.kv_at() + stage * self.tile()
    }

    /// First vector of the first V tile.
    fn value_at(&self) -> usize {
        self.key_at(self.key_stages())
    }

    /// Vectors of a row.
    pub(crate) fn vectors(&self) -> usize {
        self.head_dim / VECTOR
    }

    /// Vectors of a row padded to the depth of the instruction.
    pub(crate) fn padded(&self) -> usize {
        self.head_dim.next_multiple_of(K16) / VECTOR
    }

    /// Vectors between rows of a staged tile; odd, so that eight rows fall into different banks.
    pub(crate) fn pitch(&self) -> usize {
        self.padded() + 1
    }

    /// Vectors of one staged K or V tile.
    pub(crate) fn tile(&self) -> usize {
        match self.instruction {
            Instruction::Mma => self.keys * self.pitch(),
            Instruction::Wgmma => self.keys * self.padded(),
        }
    }

    /// The element type in the instruction's name.
    fn kind(&self) -> &'static str {
        if self.half { "f16" } else { "bf16" }
    }

    fn wgmma(&self) -> bool {
        self.instruction == Instruction::Wgmma
    }

    /// Vectors of a panel of a staged tile under `wgmma`: 8, 4 or 2, whole panels a row.
    fn panel(&self) -> usize {
        1 << self.vectors().trailing_zeros().min(3)
    }

    /// First vector of the first K tile in shared memory.
    fn kv_at(&self) -> usize {
        match (self.instruction, self.query_in_registers) {
            (Instruction::Wgmma, _) => self.rows() * self.padded(),
            (Instruction::Mma, true) => 0,
            (Instruction::Mma, false) => self.rows() * self.pitch(),
        }
    }

    /// All of shared memory but the column positions, in vectors.
    fn shared_vectors(&self) -> usize {
        (self.value_at() + self.value_stages() * self.tile()).max(self.rows() * self.pitch())
    }

    /// Shared memory of a cube.
    pub fn shared_bytes(&self) -> usize {
        let positions = if self.columns { 2 * self.keys * 4 } else { 4 };
        self.shared_vectors() * 16 + positions
    }

    /// Depth steps of the score product.
    pub(crate) fn depth(&self) -> usize {
        self.padded() / 2
    }

    /// Blocks of 8 keys in a step.
    pub(crate) fn key_tiles(&self) -> usize {
        self.keys / N8
    }

    /// Blocks of 8 output columns, rounded up to pairs.
    pub(crate) fn out_tiles(&self) -> usize {
        self.padded()
    }
}

/// Tells whether a device multiplies elements of this type with operands in registers.
pub(crate) fn serves(elem: ElemType, device: &DeviceProperties) -> bool {
    let config = MmaConfig {
        a_type: elem,
        b_type: elem,
        cd_type: ElemType::Float(FloatKind::F32),
        m: M as u32,
        n: N8 as u32,
        k: K16 as u32,
    };
    let (features, hardware) = (&device.features, &device.hardware);
    features.matmul.mma.contains(&config)
        && features.matmul.ldmatrix.contains(&elem)
        && features.plane.contains(Plane::Ops)
        && (hardware.plane_size_min, hardware.plane_size_max) == (PLANE as u32, PLANE as u32)
}

/// The blueprints of this tier that serve a problem, best first; none if the device lacks a feature.
pub(super) fn blueprints(
    problem: &Problem,
    elem: ElemType,
    device: &DeviceProperties,
) -> Vec<MmaBlueprint> {
    if !serves(elem, device) {
        return Vec::new();
    }
    let features = &device.features;
    let index = problem.index;
    let base = MmaBlueprint {
        head_dim: problem.head_dim,
        instruction: Instruction::Mma,
        half: elem == ElemType::Float(FloatKind::F16),
        planes: 4,
        m_tiles: 1,
        keys: 64,
        query_in_registers: true,
        asynchronous: features.copy_async,
        late_values: false,
        tile_tokens: index.map_or(DENSE_TOKENS, |i| i.tile_tokens),
        indexed: index.is_some(),
        columns: index.is_some_and(|i| i.columns),
        banded: index.is_some_and(|i| i.band.is_some()),
        gated: problem.gated_heads.is_some(),
        windowed: problem.window().is_some(),
    };
    let mut all = Vec::new();
    // Only 9.0 has `wgmma`: it is the one with tensor copies but not the newer kind of them.
    let hopper = features.copy_async
        && features.tma.contains(Tma::Base)
        && !features.tma.contains(Tma::Im2colWide);
    // A panel is a depth step at least.
    if hopper && problem.head_dim.is_multiple_of(K16) {
        all.extend(hopper_tiles(&base, problem));
    }
    all.extend(mma_tiles(&base, problem));
    all
}

/// Query rows that a tile has when the heads of a group are packed.
fn packed_rows(tile_tokens: usize, problem: &Problem) -> usize {
    tile_tokens.min(problem.rows) * problem.packed_heads()
}

/// `wgmma`: warpgroups that share K and V load them less often, and wait for each other. One H100, TFLOP/s
/// with 1, 2 and 3 (benches/runs/2026-11-24-h100, 2026-11-25-h100):
///
/// | head dimension | 8K | 32K |
/// | --- | --- | --- |
/// | 128 | 469, 389, 463 | 458, 430, 520 |
/// | 96 | 413, 456, 387 | -, 474, 444 |
/// | 80 | 230, 397, 334 | 262, 436, 375 |
/// | 64 | 375, 402, 296 | 412, 456, - |
fn hopper_tiles(base: &MmaBlueprint, problem: &Problem) -> Vec<MmaBlueprint> {
    let tile = |groups: usize| MmaBlueprint {
        instruction: Instruction::Wgmma,
        planes: 4 * groups,
        // Three cubes of one group fit a multiprocessor, where two would with two tiles of V.
        late_values: groups == 1 || base.head_dim > 128,
        query_in_registers: false,
        tile_tokens: match base.indexed {
            true => base.tile_tokens,
            // Whole groups of rows for every group of heads.
            false => 64 * groups,
        },
        ..*base
    };
    // With panels of 16 elements `mma` is better than one group.
    let alone = base.head_dim <= 128 && base.panel() > 2;
    let groups: &[usize] = match base.head_dim {
        128 if problem.row_keys() < MANY_KEYS => &[1, 3, 2],
        128 => &[3, 1, 2],
        _ if alone => &[2, 1],
        _ => &[2],
    };
    let mut tiles: Vec<MmaBlueprint> = groups
        .iter()
        .copied()
        .map(tile)
        .filter(|t| packed_rows(t.tile_tokens, problem).is_multiple_of(t.rows()))
        .collect();
    if tiles.is_empty() && alone {
        tiles.push(tile(1));
    }
    tiles
}

/// `mma`: with 32 rows a plane every fragment of K and V serves two instructions; a tile that has no
/// 128 rows, or too wide a head, takes 16.
fn mma_tiles(base: &MmaBlueprint, problem: &Problem) -> Vec<MmaBlueprint> {
    let narrow = base.head_dim <= 64;
    // Plain copies hold a tile's vectors in registers, which leaves none for 32 rows of wide heads.
    let room = base.asynchronous || base.head_dim <= 96;
    let wide_rows = MmaBlueprint {
        m_tiles: 2,
        keys: if narrow && base.asynchronous { 64 } else { 32 },
        query_in_registers: narrow,
        ..*base
    };
    let small = MmaBlueprint {
        query_in_registers: false,
        keys: 16,
        ..*base
    };
    match base.head_dim {
        ..=128 if room && packed_rows(base.tile_tokens, problem) > 64 => vec![wide_rows, *base],
        ..=128 => vec![*base],
        _ => vec![MmaBlueprint { keys: 32, ..small }, small],
    }
}
