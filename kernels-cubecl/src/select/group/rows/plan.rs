//! The tiles in which sampled rows are attended.

use cubecl::ir::{DeviceProperties, ElemType};
use sparse_accelerate_contract::group::{self, Split};

use super::RowsBlueprint;
use crate::{
    Refusal,
    refusal::{cube_fits, first_that_fits},
    select::{
        Shape, pack,
        probe::ProbeBlueprint,
        product::{MMA_WIDTH, Tile, UNIT_WIDTH},
    },
};

/// Rows of a cube of matrix units whose planes own half a head each, and a quarter of one.
const ROWS: [usize; 2] = [64, 32];
/// Largest head dimension whose outputs two planes hold in registers.
const HALVED: usize = 128;

/// Chooses how to attend the sampled rows.
///
/// # Errors
/// A [`Refusal`] with value, limit and way out.
pub(in crate::select::group) fn prepare(
    shape: &Shape,
    elem: ElemType,
    device: &DeviceProperties,
) -> Result<RowsBlueprint, Refusal> {
    let split = Split::new(shape);
    let ways = tiles(shape, &split, elem, device)?;
    first_that_fits(ways, elem, |tile| {
        let blueprint = RowsBlueprint {
            probe: ProbeBlueprint {
                tile,
                slots: split.slots,
                inline: device.features.copy_async,
                samples: group::samples(shape),
            },
            split,
            sharing: shape.heads_per_index(),
        };
        cube_fits(blueprint.shared_bytes(), tile.units(), device)?;
        Ok(blueprint)
    })
}

/// Tiles in the order of preference: of matrix units with many rows, so that keys are read seldom; of scalar units what fits
/// WebGPU's guaranteed 16 KiB.
fn tiles(
    shape: &Shape,
    split: &Split,
    elem: ElemType,
    device: &DeviceProperties,
) -> Result<Vec<Tile>, Refusal> {
    let d = shape.head_dim;
    let (planes, rows) = match d <= HALVED {
        true => (2, ROWS[0]),
        false => (4, ROWS[1]),
    };
    let matrix = |rows: usize, keys: usize| {
        let rows = rows.min(split.rows);
        // Few rows leave a plane more to load.
        let planes = if rows == 16 { 4 } else { planes };
        Tile {
            mma: true,
            row_planes: rows / 16,
            row_tiles: 1,
            key_planes: planes,
            key_tiles: keys / 8 / planes,
            depth: d,
            chunk: (d / MMA_WIDTH).next_multiple_of(2 * planes),
        }
    };
    let units = |rows: usize, vectors: usize| Tile {
        mma: false,
        row_planes: rows.min(split.rows) / 16,
        row_tiles: 1,
        key_planes: planes,
        key_tiles: 4 / planes,
        depth: d,
        chunk: vectors * 4 / UNIT_WIDTH,
    };
    pack::tiles(
        [matrix(rows, 64), matrix(16, 64)],
        [units(32, 8), units(16, 8)],
        elem,
        device,
    )
}
