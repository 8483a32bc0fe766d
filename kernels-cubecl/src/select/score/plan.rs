//! From a selection and a device to a launch of the scores, or a refusal.

use cubecl::ir::{DeviceProperties, ElemType};

use super::{SAMPLES, ScoreBlueprint, Tile};
use crate::{
    Refusal,
    attend::plan::fold,
    refusal::{cube_fits, first_that_fits},
    select::{Shape, pack, product::UNIT_WIDTH},
};

/// A launch that was checked against a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Compile-time parameters of the kernel.
    pub blueprint: ScoreBlueprint,
    /// Cubes that share the query heads of a KV head.
    pub packs: usize,
    /// Cubes that share the query blocks of a sequence and pack.
    pub parts: usize,
    /// Cubes folded into the device's grid.
    pub grid: (u32, u32),
}

/// Chooses how to score under `variants` weight vectors, the first with the second-order term if `gauss`:
/// the first of [`plans`].
///
/// # Errors
/// A [`Refusal`] with value, limit and way out.
pub fn prepare(
    shape: &Shape,
    variants: usize,
    gauss: bool,
    elem: ElemType,
    device: &DeviceProperties,
) -> Result<Plan, Refusal> {
    let ways = tiles(shape, elem, device)?;
    first_that_fits(ways, elem, |tile| {
        Plan::new(shape, variants, gauss, tile, device)
    })
}

/// Every way that a device has, in the order of preference.
///
/// # Errors
/// [`Refusal::ElementType`] if the device does not compute with the type at all.
pub fn plans(
    shape: &Shape,
    variants: usize,
    gauss: bool,
    elem: ElemType,
    device: &DeviceProperties,
) -> Result<Vec<Plan>, Refusal> {
    let ways = tiles(shape, elem, device)?;
    Ok(pack::plans(ways, |tile| {
        Plan::new(shape, variants, gauss, tile, device)
    }))
}

/// Tiles of 64 key blocks: for matrix units, then for scalar units what fits 32 KiB and WebGPU's
/// guaranteed 16 KiB.
fn tiles(shape: &Shape, elem: ElemType, device: &DeviceProperties) -> Result<Vec<Tile>, Refusal> {
    let matrix = Tile {
        key_tiles: 4,
        ..Tile::matrix(shape.head_dim)
    };
    let half = Tile {
        row_planes: 1,
        key_planes: 4,
        key_tiles: 2,
        ..matrix
    };
    let units = Tile {
        mma: false,
        row_planes: 4,
        row_tiles: 1,
        key_planes: 1,
        key_tiles: 8,
        chunk: 16 / UNIT_WIDTH,
        ..matrix
    };
    let small = Tile {
        row_planes: 2,
        key_planes: 2,
        key_tiles: 4,
        chunk: 8 / UNIT_WIDTH,
        ..units
    };
    pack::tiles([matrix, half], [units, small], elem, device)
}

impl Plan {
    fn new(
        shape: &Shape,
        variants: usize,
        gauss: bool,
        tile: Tile,
        device: &DeviceProperties,
    ) -> Result<Self, Refusal> {
        let heads_per_kv = shape.heads_per_kv();
        let blueprint = ScoreBlueprint {
            tile,
            slots: heads_per_kv
                .next_power_of_two()
                .min(8)
                .min(tile.rows() / SAMPLES),
            variants,
            gauss,
            inline: device.features.copy_async,
        };
        cube_fits(blueprint.shared_bytes(), tile.units(), device)?;
        let packs = heads_per_kv.div_ceil(blueprint.slots);
        let parts = shape.query_blocks().div_ceil(blueprint.blocks());
        let cubes = shape.batch * shape.kv_heads * packs * parts;
        Ok(Self {
            blueprint,
            packs,
            parts,
            grid: fold(cubes, device)?,
        })
    }
}
