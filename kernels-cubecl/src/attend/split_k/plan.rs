//! When the split-K tier serves a problem, and how it is cut into splits.

use cubecl::{
    features::Plane,
    ir::{DeviceProperties, ElemType, FloatKind},
};

use super::{PER_UNIT, SPLIT_KEYS, SplitKBlueprint};
use crate::attend::{Problem, Stored};

/// Most query rows per sequence.
pub(in crate::attend) const MAX_ROWS: usize = 4;
/// Most packed query rows of a cube.
const MAX_PACKED: usize = 32;
/// Units of a cube whose rows fit one or two chunks, and of others.
const UNITS: (usize, usize) = (128, 256);
/// Cubes that a multiprocessor holds at once: 128 units of at most 168 registers each, of 65536.
const CUBES_PER_PROCESSOR: usize = 3;
/// Multiprocessors of a device that does not tell.
const PROCESSORS: usize = 32;
/// Most keys of a split, so that one long sequence of a large batch does not run alone at the end.
const MOST_SPLIT_KEYS: usize = 8192;
/// Bytes of one load.
const LOAD_BYTES: usize = 16;

/// The blueprint that serves a problem on this device; `None` leaves it to the other tiers.
pub(in crate::attend) fn blueprint(
    problem: &Problem,
    elem: ElemType,
    device: &DeviceProperties,
) -> Option<SplitKBlueprint> {
    let hardware = &device.hardware;
    let packed = problem.rows * problem.packed_heads();
    if problem.gated_heads.is_some()
        || problem.rows > MAX_ROWS
        || packed > MAX_PACKED
        || problem.keys < SPLIT_KEYS
    {
        return None;
    }
    let lanes = (problem.head_dim / PER_UNIT).next_power_of_two();
    let rows = match packed {
        1 | 2 => packed,
        _ => 4,
    };
    let chunks = packed.div_ceil(rows);
    let units = if chunks <= 2 { UNITS.0 } else { UNITS.1 };
    let sets = (units / (lanes * chunks)).max(1);
    let int8 = problem.stored == Stored::Int8;
    let width = match int8 {
        true => PER_UNIT.min(hardware.max_vector_size),
        false => device
            .io_optimized_vector_sizes(elem.size())
            .find(|w| w * elem.size() <= LOAD_BYTES && *w <= PER_UNIT)?,
    };
    // Loads in flight per unit, against registers: a row takes 16 for its query and output.
    let loads = if rows <= 2 { 8 } else { 4 };
    let bytes = if int8 { 1 } else { elem.size() };
    let mut blueprint = SplitKBlueprint {
        head_dim: problem.head_dim,
        width,
        words: !int8 && elem.size() == 2 && width == PER_UNIT,
        bfloat: !int8 && elem == ElemType::Float(FloatKind::BF16),
        int8,
        lanes,
        sets: 1 << sets.ilog2(),
        rows,
        chunks,
        keys: (loads * LOAD_BYTES / (PER_UNIT * bytes)).min(loads),
        planes: device.features.plane.contains(Plane::Ops)
            && hardware.plane_size_min as usize >= lanes,
        indexed: problem.index.is_some(),
        columns: problem.index.is_some_and(|i| i.columns),
        banded: problem.index.is_some_and(|i| i.band.is_some()),
        single: problem.rows == 1,
        windowed: problem.window().is_some(),
    };
    while blueprint.shared_bytes() > hardware.max_shared_memory_size && blueprint.keys > 1 {
        blueprint.keys /= 2;
    }
    let fits = blueprint.shared_bytes() <= hardware.max_shared_memory_size
        && blueprint.units() <= hardware.max_units_per_cube as usize;
    fits.then_some(blueprint)
}

/// Splits of the longest sequence: as many cubes as the device holds at once, each of some length.
pub(in crate::attend) fn splits(keys: usize, groups: usize, device: &DeviceProperties) -> usize {
    let processors = device.hardware.num_streaming_multiprocessors;
    let processors = processors.map_or(PROCESSORS, |n| n as usize);
    let filling = processors * CUBES_PER_PROCESSOR / groups;
    filling
        .max(keys.div_ceil(MOST_SPLIT_KEYS))
        .clamp(1, keys.div_ceil(SPLIT_KEYS))
}
