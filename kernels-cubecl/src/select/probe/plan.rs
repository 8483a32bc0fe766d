//! From a selection and a device to launches of the probe, or a refusal.

use cubecl::{
    features::AtomicUsage,
    ir::{DeviceProperties, ElemType, Type, UIntKind},
};

use sparse_accelerate_contract::scratch::ProbeScratch;

use super::{ProbeBlueprint, Tile};
use crate::{
    Refusal,
    attend::plan::fold,
    refusal::{cube_fits, first_that_fits},
    select::{Shape, pack, product::UNIT_WIDTH},
};

/// A launch that was checked against a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Compile-time parameters of the kernels.
    pub blueprint: ProbeBlueprint,
    /// Cubes that share the query heads of a KV head.
    pub packs: usize,
    /// Cubes of a pass, folded into the device's grid.
    pub grid: (u32, u32),
    /// Floats of scratch.
    pub scratch: usize,
}

/// Chooses how to probe: the first of [`plans`].
///
/// # Errors
/// A [`Refusal`] with value, limit and way out.
pub fn prepare(shape: &Shape, elem: ElemType, device: &DeviceProperties) -> Result<Plan, Refusal> {
    let ways = tiles(shape, elem, device)?;
    first_that_fits(ways, elem, |tile| Plan::new(shape, tile, device))
}

/// Every way that a device has, in the order of preference.
///
/// # Errors
/// [`Refusal::ElementType`] if the device does not compute with the type at all.
pub fn plans(
    shape: &Shape,
    elem: ElemType,
    device: &DeviceProperties,
) -> Result<Vec<Plan>, Refusal> {
    let ways = tiles(shape, elem, device)?;
    Ok(pack::plans(ways, |tile| Plan::new(shape, tile, device)))
}

/// Tiles of 128 keys. Matrix units take 32 x 64 a plane, where a fragment serves two instructions or
/// more; scalar units what fits 32 KiB, then what fits WebGPU's guaranteed 16 KiB.
fn tiles(shape: &Shape, elem: ElemType, device: &DeviceProperties) -> Result<Vec<Tile>, Refusal> {
    let matrix = Tile::matrix(shape.head_dim);
    let half = Tile {
        row_planes: 1,
        key_planes: 4,
        key_tiles: 4,
        ..matrix
    };
    let units = Tile {
        mma: false,
        row_planes: 2,
        row_tiles: 1,
        chunk: 16 / UNIT_WIDTH,
        ..matrix
    };
    let small = Tile {
        row_planes: 1,
        row_tiles: 1,
        chunk: 8 / UNIT_WIDTH,
        mma: false,
        ..half
    };
    pack::tiles([matrix, half], [units, small], elem, device)
}

impl Plan {
    fn new(shape: &Shape, tile: Tile, device: &DeviceProperties) -> Result<Self, Refusal> {
        let scratch = ProbeScratch::new(shape);
        let blueprint = ProbeBlueprint {
            tile,
            slots: scratch.slots,
            inline: device.features.copy_async,
            samples: 0,
        };
        cube_fits(blueprint.shared_bytes(), tile.units(), device)?;
        let word = Type::atomic(ElemType::UInt(UIntKind::U32));
        if !device.atomic_type_usage(word).contains(AtomicUsage::Add) {
            return Err(Refusal::ElementType {
                got: "atomic u32".into(),
                hint: "another device",
            });
        }
        let words = scratch.words();
        if words > u32::MAX as usize {
            return Err(Refusal::TooLarge {
                what: "the scratch of the probe (floats)",
                got: words,
                limit: u32::MAX as usize,
            });
        }
        Ok(Self {
            blueprint,
            packs: scratch.packs,
            grid: fold(scratch.cubes, device)?,
            scratch: words,
        })
    }
}
