//! The cooperative-matrix tier, for devices whose matrix units take whole tiles only: `wmma` of compute
//! capability 7.0 and 7.5, Vulkan's cooperative matrices, Metal's `simdgroup` matrices.
//!
//! Which unit holds which element of a fragment is not known, so what is done row by row goes through
//! shared memory: scores leave as f32, the units that own a row turn them into probabilities, and these
//! come back as left operands. The output stays in accumulators: a step that does not raise a maximum by
//! much leaves it alone, and only one that does takes it through shared memory to be rescaled. Adding
//! every step's output in registers or shared memory would move it at every step instead.
//!
//! A plane owns its rows for good; planes of a cube share K and V alone. Planes must have one size: where
//! a driver may choose among several, nobody knows which units load a fragment together.

// A comptime condition is an `if` of its own: it decides what is compiled.
#![allow(clippy::collapsible_if)]

mod kernel;
mod product;
mod softmax;

pub(super) use kernel::attend_cmma;

use cubecl::{
    features::{MmaConfig, Plane},
    ir::{DeviceProperties, ElemType, FloatKind, OpaqueType},
};

use super::{Problem, QUERY_TILE};
use crate::table::{Serves, Tiling, Walk};

/// Query rows of a plane.
const PLANE_ROWS: usize = 16;
/// Keys per step.
const KEYS: usize = 32;
/// Rows of fragments that a plane's rows allow.
const M: [u32; 2] = [8, 16];
/// Columns and depths of fragments that steps and 16-byte rows of a fragment allow.
const N_K: [u32; 3] = [8, 16, 32];
/// Bytes of an element, f16 or bf16.
const BYTES: usize = 2;
/// Vectors of 4 floats.
const QUAD: usize = 4;
/// Elements between the rows of neighbours: 16 bytes, so that rows fall into different banks and every
/// row stays aligned to what loads of fragments ask for.
const PAD: usize = 8;
/// Above this head dimension the output alone fills half of a unit's registers, and Q is read again.
const HELD_QUERY: usize = 128;

/// Rows, columns and depth of one cooperative product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fragment {
    /// Rows of the left operand and of the product.
    pub m: usize,
    /// Columns of the right operand and of the product.
    pub n: usize,
    /// Columns of the left operand, rows of the right one.
    pub k: usize,
}

/// The compile-time choices of a kernel of this tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CmmaBlueprint {
    /// Head dimension, a multiple of 8.
    pub head_dim: usize,
    /// The device's product.
    pub fragment: Fragment,
    /// Units of a plane.
    pub plane: usize,
    /// Planes of a cube.
    pub planes: usize,
    /// Elements of a vector, 4 or 8.
    pub width: usize,
    /// Keys per step.
    pub keys: usize,
    /// Q stays in fragments and its shared memory is reused; otherwise it is read again every step.
    pub query_in_fragments: bool,
    /// V of a step replaces its K in shared memory; otherwise both are staged at once.
    pub one_tile: bool,
    /// Inline PTX.
    pub inline: bool,
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

impl CmmaBlueprint {
    /// Query rows of a cube.
    pub fn rows(&self) -> usize {
        self.planes * PLANE_ROWS
    }

    /// Units of a cube.
    pub fn units(&self) -> usize {
        self.planes * self.plane
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

    /// Fragments of rows that a plane owns.
    fn row_tiles(&self) -> usize {
        PLANE_ROWS / self.fragment.m
    }

    /// Units that own a row together.
    fn share(&self) -> usize {
        self.plane / PLANE_ROWS
    }

    /// Steps of a reduction over the units of a row.
    fn reductions(&self) -> usize {
        self.share().ilog2() as usize
    }

    /// Vectors of a step's probabilities that a unit owns.
    fn groups(&self) -> usize {
        self.keys / self.width / self.share()
    }

    /// Vectors of a row in global memory.
    fn vectors(&self) -> usize {
        self.head_dim / self.width
    }

    /// Elements of a row padded to whole fragments, both ways round.
    fn padded(&self) -> usize {
        let Fragment { n, k, .. } = self.fragment;
        self.head_dim.next_multiple_of(n.max(k))
    }

    /// Elements from row to row of staged Q, K and V.
    fn pitch(&self) -> usize {
        self.padded() + PAD
    }

    /// Elements from row to row of the probabilities.
    fn weight_pitch(&self) -> usize {
        self.keys + PAD
    }

    /// Floats from row to row of the scores.
    fn score_pitch(&self) -> usize {
        self.keys + QUAD
    }

    /// Vectors of one staged tile of K or V.
    fn tile(&self) -> usize {
        self.keys * self.pitch() / self.width
    }

    /// Vectors of staged Q.
    fn query_tile(&self) -> usize {
        self.rows() * self.pitch() / self.width
    }

    /// First vector of K in the staged tiles, in vectors.
    fn key_at(&self) -> usize {
        match self.query_in_fragments {
            true => 0,
            false => self.query_tile(),
        }
    }

    /// First vector of V in the staged tiles, in vectors.
    fn value_at(&self) -> usize {
        match self.one_tile {
            true => self.key_at(),
            false => self.key_at() + self.tile(),
        }
    }

    /// Vectors of all staged tiles.
    fn staged(&self) -> usize {
        (self.value_at() + self.tile()).max(self.query_tile())
    }

    /// Vectors of the probabilities.
    fn weights(&self) -> usize {
        self.rows() * self.weight_pitch() / self.width
    }

    /// Vectors of 4 floats of the scores; the output passes here as well.
    fn scores(&self) -> usize {
        self.rows() * self.score_pitch() / QUAD
    }

    /// Column positions.
    fn positions(&self) -> usize {
        if self.columns { self.keys } else { 1 }
    }

    /// Shared memory of a cube.
    pub fn shared_bytes(&self) -> usize {
        (self.staged() + self.weights()) * self.width * BYTES
            + self.scores() * QUAD * 4
            + self.positions() * 4
    }

    /// Depth steps of the score product.
    fn depth(&self) -> usize {
        self.padded() / self.fragment.k
    }

    /// Fragments of keys in a step.
    fn key_tiles(&self) -> usize {
        self.keys / self.fragment.n
    }

    /// Fragments of output columns.
    fn out_tiles(&self) -> usize {
        self.head_dim.div_ceil(self.fragment.n)
    }
}

/// The device's product for elements of type `elem` with f32 sums: 16 x 16 x 16 if there is that, else the
/// largest.
fn fragment(elem: ElemType, device: &DeviceProperties) -> Option<Fragment> {
    let sum = ElemType::Float(FloatKind::F32);
    let suits = |c: &&MmaConfig| {
        (c.a_type, c.b_type, c.cd_type) == (elem, elem, sum)
            && M.contains(&c.m)
            && N_K.contains(&c.n)
            && N_K.contains(&c.k)
    };
    let worth = |c: &&MmaConfig| ((c.m, c.n, c.k) == (16, 16, 16), c.m * c.n * c.k, c.m);
    let all = &device.features.matmul.cmma;
    all.iter()
        .filter(suits)
        .max_by_key(worth)
        .map(|c| Fragment {
            m: c.m as usize,
            n: c.n as usize,
            k: c.k as usize,
        })
}

/// The blueprints of this tier that serve a problem, best first; none if the device lacks a feature.
pub(super) fn blueprints(
    problem: &Problem,
    elem: ElemType,
    device: &DeviceProperties,
) -> Vec<CmmaBlueprint> {
    let (features, hardware) = (&device.features, &device.hardware);
    let plane = hardware.plane_size_max as usize;
    let planes_fit = hardware.plane_size_min == hardware.plane_size_max
        && plane.is_power_of_two()
        && plane >= PLANE_ROWS
        && features.plane.contains(Plane::Ops)
        && features.plane.contains(Plane::Sync);
    let narrow = matches!(elem, ElemType::Float(FloatKind::F16 | FloatKind::BF16));
    let fragment = match planes_fit && narrow {
        true => fragment(elem, device),
        false => None,
    };
    let Some(fragment) = fragment else {
        return Vec::new();
    };
    let index = problem.index;
    let base = CmmaBlueprint {
        head_dim: problem.head_dim,
        fragment,
        plane,
        planes: 4,
        width: if hardware.max_vector_size >= 8 { 8 } else { 4 },
        keys: KEYS,
        query_in_fragments: problem.head_dim <= HELD_QUERY,
        one_tile: false,
        // Of the devices with planes, what compiles CUDA C++ alone has barriers as objects.
        inline: features.types.opaque.contains(&OpaqueType::Barrier),
        tile_tokens: index.map_or(QUERY_TILE, |i| i.tile_tokens),
        indexed: index.is_some(),
        columns: index.is_some_and(|i| i.columns),
        banded: index.is_some_and(|i| i.band.is_some()),
        gated: problem.gated_heads.is_some(),
        windowed: problem.window().is_some(),
    };
    let one_tile = CmmaBlueprint {
        one_tile: true,
        ..base
    };
    let small = CmmaBlueprint {
        planes: 2,
        ..one_tile
    };
    // Fewest barriers first. What Q leaves behind has room for both tiles; where it stays, with a head
    // dimension of 256, these take 80, 64, 40 and 29 KiB.
    let all = match base.query_in_fragments {
        true => vec![base, small],
        false => vec![base, one_tile, small, CmmaBlueprint { keys: 16, ..small }],
    };
    all.into_iter()
        .filter(|b| {
            let whole = [b.width * b.share(), fragment.n, fragment.k];
            let whole = whole.iter().all(|part| b.keys.is_multiple_of(*part));
            whole && b.units() >= b.keys.max(b.padded() / b.width)
        })
        .collect()
}
