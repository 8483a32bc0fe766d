//! Root-mean-square norm of rows.
//!
//! `out[r, i] = x[r, i] / sqrt(mean_i(x[r, i]^2) + eps) gamma[i]` (Zhang and Sennrich 2019), in f32,
//! rounded once. One cube takes one row. Where a unit's part is a few vectors they stay in registers;
//! longer rows are read twice. The sum crosses units by plane operations where the device has planes
//! of one size, through shared memory elsewhere; its order, so its bits, depend on that.

use cubecl::{
    client::Client,
    features::Plane,
    ir::{AddressType, DeviceProperties, ElemType},
    prelude::*,
};

use crate::layout;

/// Vectors a unit holds, where the device allows as many units.
const HELD: usize = 4;
/// Most vectors a unit holds; beyond, rows are read twice.
const MOST_HELD: usize = 8;
/// Fewest and most units of a cube.
const UNITS: (usize, usize) = (32, 256);

/// Compile-time parameters of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Blueprint {
    /// Elements of a vector.
    width: usize,
    /// Units of a cube, a power of two.
    units: usize,
    /// Vectors a unit holds; 0 to read rows twice.
    held: usize,
    /// Units of a plane; 0 without plane operations.
    plane: usize,
}

impl Blueprint {
    fn new(length: usize, stride: usize, elem: ElemType, device: &DeviceProperties) -> Self {
        let width = layout::width(device, elem, &[length, stride]);
        let vectors = length / width;
        let hardware = &device.hardware;
        let most = UNITS.1.min(hardware.max_units_per_cube as usize);
        let units = vectors.div_ceil(HELD).next_power_of_two();
        let units = units.clamp(UNITS.0.min(most), most);
        let held = vectors.div_ceil(units);
        let plane = hardware.plane_size_min as usize;
        let planes = device.features.plane.contains(Plane::Ops)
            && hardware.plane_size_min == hardware.plane_size_max
            && units.is_multiple_of(plane.max(1));
        Self {
            width,
            units,
            held: if held > MOST_HELD { 0 } else { held },
            plane: if planes { plane } else { 0 },
        }
    }
}

#[cube(launch_unchecked, address_type = "dynamic")]
// A comptime condition is an `if` of its own: it decides what is compiled.
#[allow(clippy::too_many_arguments, clippy::collapsible_if)]
fn rms_norm_rows<E: Float, N: Size>(
    x: &Tensor<Vector<E, N>>,
    gamma: &[Vector<f32, N>],
    out: &mut [Vector<E, N>],
    rows: usize,
    vectors: usize,
    eps: f32,
    #[comptime] bp: Blueprint,
    #[define(E)] _elem: ElemType,
) {
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let from = row * (x.stride(0) / comptime!(bp.width));
    let to = row * vectors;
    let mut held = Array::<Vector<E, N>>::new(comptime!(bp.held.max(1)));
    let mut squares = Vector::<f32, N>::new(f32::new(0.0));
    if comptime!(bp.held > 0) {
        // All loads first, past the end the last vector again: a branch around each would wait for it.
        #[unroll]
        for i in 0..comptime!(bp.held) {
            let at = min(unit + comptime!(i * bp.units), vectors - 1);
            held[i] = x[from + at];
        }
        #[unroll]
        for i in 0..comptime!(bp.held) {
            if unit + comptime!(i * bp.units) < vectors {
                let part = Vector::<f32, N>::cast_from(held[i]);
                squares += part * part;
            }
        }
    } else {
        let mut at = unit;
        while at < vectors {
            let part = Vector::<f32, N>::cast_from(x[from + at]);
            squares += part * part;
            at += comptime!(bp.units);
        }
    }
    let mut mine = f32::new(0.0);
    #[unroll]
    for i in 0..comptime!(bp.width) {
        mine += squares.extract(i);
    }
    let length = f32::cast_from(vectors * comptime!(bp.width));
    let scale = 1.0 / (cube_sum(mine, bp) / length + eps).sqrt();
    let scale = Vector::<f32, N>::new(scale);
    if comptime!(bp.held > 0) {
        #[unroll]
        for i in 0..comptime!(bp.held) {
            let at = unit + comptime!(i * bp.units);
            if at < vectors {
                let part = Vector::<f32, N>::cast_from(held[i]);
                out[to + at] = Vector::cast_from(part * scale * gamma[at]);
            }
        }
    } else {
        let mut at = unit;
        while at < vectors {
            let part = Vector::<f32, N>::cast_from(x[from + at]);
            out[to + at] = Vector::cast_from(part * scale * gamma[at]);
            at += comptime!(bp.units);
        }
    }
}

/// The sum over the units of a cube, known to all of them.
#[cube]
fn cube_sum(mine: f32, #[comptime] bp: Blueprint) -> f32 {
    let unit = UNIT_POS as usize;
    if comptime!(bp.plane > 0) {
        let planes = comptime!(bp.units / bp.plane);
        let mut sums = Shared::<[f32]>::new_slice(planes);
        let of_plane = plane_sum(mine);
        if UNIT_POS_PLANE == 0 {
            sums[unit / comptime!(bp.plane)] = of_plane;
        }
        sync_cube();
        let mut total = f32::new(0.0);
        #[unroll]
        for i in 0..planes {
            total += sums[i];
        }
        total
    } else {
        let mut sums = Shared::<[f32]>::new_slice(comptime!(bp.units));
        sums[unit] = mine;
        #[unroll]
        for stage in 0..comptime!(bp.units.ilog2() as usize) {
            let half = comptime!(bp.units >> (stage + 1));
            sync_cube();
            if unit < half {
                sums[unit] += sums[unit + half];
            }
        }
        sync_cube();
        sums[0]
    }
}

/// Launches on `x` `shape` `[rows, width]`, whose rows are contiguous and `stride` elements apart, into
/// a contiguous `out` of the same shape; `gamma` `[width]` is f32. At most `u32::MAX` rows.
#[allow(unsafe_code, clippy::too_many_arguments)]
pub fn launch(
    client: &Client,
    shape: [usize; 2],
    stride: usize,
    elem: ElemType,
    eps: f32,
    address: AddressType,
    x: TensorArg,
    gamma: BufferArg,
    out: BufferArg,
) {
    let blueprint = Blueprint::new(shape[1], stride, elem, client.properties());
    let dim = CubeDim::new_1d(blueprint.units as u32);
    // One cube a row, folded into the device's grid.
    let units = shape[0] * blueprint.units;
    let count = cubecl::calculate_cube_count_elemwise(client, units, dim);
    // SAFETY: cubes beyond the rows stop at once; the others stay inside their row of each shape.
    unsafe {
        rms_norm_rows::launch_unchecked(
            client,
            count,
            dim,
            address,
            blueprint.width,
            x,
            gamma,
            out,
            shape[0],
            shape[1] / blueprint.width,
            eps,
            blueprint,
            elem,
        );
    }
}
