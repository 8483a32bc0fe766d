//! From a problem and a device to a launch: tier, tile, grid; or a refusal.
//!
//! The choice reads features and limits, never a device's name.

use cubecl::ir::{DeviceProperties, ElemType};

use super::{DecodeBlueprint, QUERY_TILE, UnitBlueprint, decode};
use crate::Refusal;

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
    /// Keys of the longest sequence, or the cache's length: decides how finely keys are split.
    pub keys: usize,
    /// Head dimension, a multiple of 8.
    pub head_dim: usize,
    /// Softmax scale.
    pub scale: f32,
    /// The index; `None` for dense causal, whose one range is implicit.
    pub index: Option<IndexShape>,
}

/// The index's shape and element rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexShape {
    /// Index heads: the query heads, or a divisor of the KV heads.
    pub heads: usize,
    /// Query tiles per sequence and head.
    pub tiles: usize,
    /// Sinks and window of Triangular's element rule.
    pub band: Option<(u32, u32)>,
}

impl Problem {
    /// Query heads that one cube packs into its rows: the whole group, unless the index tells the
    /// group's heads apart.
    pub fn pack(&self) -> usize {
        match self.index {
            Some(index) if index.heads == self.heads => 1,
            _ => self.heads / self.kv_heads,
        }
    }

    /// Query tiles per sequence.
    pub fn tiles(&self) -> usize {
        self.rows.div_ceil(QUERY_TILE)
    }
}

/// A way to compute attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Tier {
    /// Scalar and 4-wide vector arithmetic, shared memory, barriers: runs on every device.
    Unit(UnitBlueprint),
    /// Few query rows, keys split over many cubes: plane operations if there are any.
    SplitK(DecodeBlueprint),
}

/// A launch that was checked against a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// How.
    pub tier: Tier,
    /// Cubes that split one query tile of one head group, by its rows or by its keys.
    pub splits: usize,
    /// Cubes in all.
    pub cubes: usize,
    /// The cubes folded into the device's grid.
    pub grid: (u32, u32),
    /// Floats of [`super::Tensors::scratch`]; 0 for none.
    pub scratch: usize,
}

/// Chooses how to run `problem` with elements of type `elem` on a device.
///
/// # Errors
/// A [`Refusal`] with value, limit and way out.
pub fn prepare(
    problem: &Problem,
    elem: ElemType,
    device: &DeviceProperties,
) -> Result<Plan, Refusal> {
    if !device.supports_type(elem) {
        return Err(Refusal::ElementType {
            got: format!("{elem:?}"),
            hint: "f16 or f32",
        });
    }
    if let Some(plan) = decode::choose(problem, elem, device) {
        return Ok(plan);
    }
    let hardware = &device.hardware;
    // The larger tile reads K and V half as often; the smaller fits WebGPU's guaranteed 16 KiB.
    let per_tile = QUERY_TILE.min(problem.rows) * problem.pack();
    let fits = |b: &UnitBlueprint| {
        b.shared_bytes() <= hardware.max_shared_memory_size
            && b.units() <= hardware.max_units_per_cube as usize
    };
    let large = UnitBlueprint::new(problem, 16);
    let small = UnitBlueprint::new(problem, 8);
    let blueprint = match per_tile > small.rows() && fits(&large) {
        true => large,
        false => small,
    };
    if blueprint.shared_bytes() > hardware.max_shared_memory_size {
        return Err(Refusal::Resource {
            resource: "shared memory per cube (bytes)",
            needed: blueprint.shared_bytes(),
            limit: hardware.max_shared_memory_size,
        });
    }
    if blueprint.units() > hardware.max_units_per_cube as usize {
        return Err(Refusal::Resource {
            resource: "units per cube",
            needed: blueprint.units(),
            limit: hardware.max_units_per_cube as usize,
        });
    }
    let splits = per_tile.div_ceil(blueprint.rows());
    let groups = problem.heads / problem.pack();
    let cubes = problem.batch * groups * problem.tiles() * splits;
    Ok(Plan {
        tier: Tier::Unit(blueprint),
        splits,
        cubes,
        grid: fold(cubes, device)?,
        scratch: 0,
    })
}

/// Folds cubes into the device's grid.
pub(super) fn fold(cubes: usize, device: &DeviceProperties) -> Result<(u32, u32), Refusal> {
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
