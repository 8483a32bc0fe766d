//! From a problem and a device to a launch: tier, tile, grid; or a refusal.
//!
//! The choice reads features and limits, never a device's name.

use cubecl::ir::{DeviceProperties, ElemType};

use super::{
    CmmaBlueprint, MmaBlueprint, SplitKBlueprint, Stored, UnitBlueprint, Visible, cmma, mma,
    split_k,
};
use crate::{
    Refusal,
    layout::supports,
    refusal::{cube_fits, first_that_fits},
};

/// One attention call. Lengths in tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Problem {
    /// Sequences.
    pub batch: usize,
    /// Query heads.
    pub heads: usize,
    /// KV heads; divides `heads`.
    pub kv_heads: usize,
    /// Query rows of the longest sequence.
    pub rows: usize,
    /// Keys of the longest sequence, or the cache's length: decides how finely keys are split, and that a
    /// window of as many keys or more hides none.
    pub keys: usize,
    /// Head dimension, a multiple of 8.
    pub head_dim: usize,
    /// Softmax scale.
    pub scale: f32,
    /// The index; `None` for dense causal, whose one range is implicit.
    pub index: Option<IndexShape>,
    /// Index heads with a gate each, as many as the index has if there is one; `None` to serve all heads.
    ///
    /// Gates follow the table's rows, one word per sequence and index head; without an index the rows are
    /// still counted, in tiles of [`super::QUERY_TILE`]. A launch with an index serves the heads whose
    /// gate is 0, one without those whose gate is 1; of other heads nothing is written.
    pub gated_heads: Option<usize>,
    /// How keys and values are stored. [`Tier::SplitK`] alone reads int8: it waits for memory, where the
    /// other tiers would convert a key once for every query tile that sees it.
    pub stored: Stored,
    /// The keys that a row may see, on top of the index and its band.
    pub visible: Visible,
}

/// The index's shape and element rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexShape {
    /// Index heads: the query heads, or a divisor of the KV heads.
    pub heads: usize,
    /// Index rows per sequence and head.
    pub tiles: usize,
    /// Query positions per index row.
    pub tile_tokens: usize,
    /// Rows may have columns.
    pub columns: bool,
    /// Sinks and window of Triangular's element rule.
    pub band: Option<(u32, u32)>,
}

impl Problem {
    /// Query heads that share a KV head.
    pub fn heads_per_kv(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Query heads that one cube packs into its rows: those that share a KV head, unless the index tells
    /// them apart.
    pub fn packed_heads(&self) -> usize {
        match self.index_heads() {
            Some(heads) if heads == self.heads => 1,
            _ => self.heads_per_kv(),
        }
    }

    /// Keys of the window; `None` where every row sees all keys up to its own.
    pub(super) fn window(&self) -> Option<u32> {
        self.visible.window(self.keys)
    }

    /// Most keys that a row sees.
    pub(super) fn row_keys(&self) -> usize {
        self.window().map_or(self.keys, |keys| keys as usize)
    }

    /// Heads that the table tells apart, by rows or by gates alone.
    pub(super) fn index_heads(&self) -> Option<usize> {
        self.index.map(|i| i.heads).or(self.gated_heads)
    }
}

/// A way to compute attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Tier {
    /// Matrix units with operands in registers, plane shuffles; f16 and bf16.
    Mma(MmaBlueprint),
    /// Matrix units that hide where operands lie, plane shuffles; f16 and bf16.
    Cmma(CmmaBlueprint),
    /// Scalar and 4-wide vector arithmetic, shared memory, barriers: runs on every device.
    Unit(UnitBlueprint),
    /// Few query rows, keys split over many cubes: plane operations if there are any.
    SplitK(SplitKBlueprint),
}

impl Tier {
    fn rows(&self) -> usize {
        match self {
            Self::SplitK(b) => b.rows * b.chunks,
            Self::Mma(b) => b.rows(),
            Self::Cmma(b) => b.rows(),
            Self::Unit(b) => b.rows(),
        }
    }

    fn units(&self) -> usize {
        match self {
            Self::SplitK(b) => b.units(),
            Self::Mma(b) => b.units(),
            Self::Cmma(b) => b.units(),
            Self::Unit(b) => b.units(),
        }
    }

    fn shared_bytes(&self) -> usize {
        match self {
            Self::SplitK(b) => b.shared_bytes(),
            Self::Mma(b) => b.shared_bytes(),
            Self::Cmma(b) => b.shared_bytes(),
            Self::Unit(b) => b.shared_bytes(),
        }
    }

    fn tile_tokens(&self) -> usize {
        match self {
            Self::SplitK(_) => split_k::MAX_ROWS,
            Self::Mma(b) => b.tile_tokens,
            Self::Cmma(b) => b.tile_tokens,
            Self::Unit(b) => b.tile_tokens,
        }
    }
}

/// A launch that was checked against a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// How.
    pub tier: Tier,
    /// Query tiles per sequence: index rows, or the tier's own tiles where there is no index.
    pub tiles: usize,
    /// Cubes that split one query tile of one head group, by its rows or by its keys.
    pub splits: usize,
    /// Cubes in all.
    pub cubes: usize,
    /// The cubes folded into the device's grid.
    pub grid: (u32, u32),
    /// Floats of [`super::Tensors::scratch`]; 0 for none.
    pub scratch: usize,
}

impl Plan {
    /// Checks that a device runs `problem` by `tier`, and lays out its cubes.
    ///
    /// # Errors
    /// A [`Refusal`] with value, limit and way out.
    pub fn new(problem: &Problem, tier: Tier, device: &DeviceProperties) -> Result<Self, Refusal> {
        cube_fits(tier.shared_bytes(), tier.units(), device)?;
        let tiles = match problem.index {
            Some(index) => index.tiles,
            None => problem.rows.div_ceil(tier.tile_tokens()),
        };
        let tokens = tier.tile_tokens().min(problem.rows);
        let groups = problem.heads / problem.packed_heads();
        let splits = match tier {
            Tier::SplitK(_) => split_k::splits(split_keys(problem), problem.batch * groups, device),
            _ => (tokens * problem.packed_heads()).div_ceil(tier.rows()),
        };
        let cubes = problem.batch * groups * tiles * splits;
        let scratch = match tier {
            Tier::SplitK(b) => cubes.saturating_mul(tokens * problem.packed_heads() * b.pitch()),
            _ => 0,
        };
        if scratch > u32::MAX as usize {
            return Err(Refusal::TooLarge {
                what: "the scratch of split keys (floats)",
                got: scratch,
                limit: u32::MAX as usize,
            });
        }
        Ok(Self {
            tier,
            tiles,
            splits,
            cubes,
            grid: fold(cubes, device)?,
            scratch,
        })
    }
}

/// Keys that the rows of a sequence see between them, at most.
fn split_keys(problem: &Problem) -> usize {
    match problem.window() {
        Some(_) => (problem.row_keys() + problem.rows).min(problem.keys),
        None => problem.keys,
    }
}

/// Chooses how to run `problem` with elements of type `elem` on a device: the first of
/// [`candidates`].
///
/// # Errors
/// A [`Refusal`] with value, limit and way out.
pub fn prepare(
    problem: &Problem,
    elem: ElemType,
    device: &DeviceProperties,
) -> Result<Plan, Refusal> {
    let ways = tiers(problem, elem, device)?;
    first_that_fits(ways, elem, |tier| Plan::new(problem, tier, device))
}

/// Every way to run `problem` on a device, in the order of preference.
///
/// # Errors
/// [`Refusal::ElementType`] if the device does not compute with the type at all.
pub fn candidates(
    problem: &Problem,
    elem: ElemType,
    device: &DeviceProperties,
) -> Result<Vec<Plan>, Refusal> {
    Ok(tiers(problem, elem, device)?
        .into_iter()
        .filter_map(|tier| Plan::new(problem, tier, device).ok())
        .collect())
}

fn tiers(
    problem: &Problem,
    elem: ElemType,
    device: &DeviceProperties,
) -> Result<Vec<Tier>, Refusal> {
    supports(elem, device)?;
    let mut tiers: Vec<Tier> = split_k::blueprint(problem, elem, device)
        .into_iter()
        .map(Tier::SplitK)
        .collect();
    if problem.stored == Stored::Int8 {
        return match tiers.is_empty() {
            true => Err(Refusal::Int8 { rows: problem.rows }),
            false => Ok(tiers),
        };
    }
    tiers.extend(
        mma::blueprints(problem, elem, device)
            .into_iter()
            .map(Tier::Mma),
    );
    tiers.extend(
        cmma::blueprints(problem, elem, device)
            .into_iter()
            .map(Tier::Cmma),
    );
    // The larger tile reads K and V half as often; the smaller fits WebGPU's guaranteed 16 KiB.
    let large = UnitBlueprint::new(problem, 16);
    let small = UnitBlueprint::new(problem, 8);
    if large.tile_tokens.min(problem.rows) * problem.packed_heads() > small.rows() {
        tiers.push(Tier::Unit(large));
    }
    tiers.push(Tier::Unit(small));
    Ok(tiers)
}

/// Folds cubes into the device's grid.
pub(crate) fn fold(cubes: usize, device: &DeviceProperties) -> Result<(u32, u32), Refusal> {
    let (max_x, max_y, _) = device.hardware.max_cube_count;
    let limit = (max_x as usize)
        .saturating_mul(max_y as usize)
        .min(u32::MAX as usize);
    if cubes > limit {
        return Err(Refusal::TooLarge {
            what: "the number of query tiles",
            got: cubes,
            limit,
        });
    }
    let x = cubes.min(max_x as usize);
    Ok((x as u32, cubes.div_ceil(x) as u32))
}
