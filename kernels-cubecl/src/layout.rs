//! The common parts of kernels on rows: the width of their vectors, their cubes, the element types.

use cubecl::{
    client::Client,
    ir::{DeviceProperties, ElemType, FloatKind},
    prelude::*,
    server::Handle,
};

use crate::Refusal;

/// Bytes of the widest load.
const LOAD_BYTES: usize = 16;
/// Units of a cube where every unit works alone; WebGPU guarantees as many.
pub(crate) const UNITS: u32 = 256;

/// Checks that a device computes with an element type.
///
/// # Errors
/// [`Refusal::ElementType`] with the types to take instead.
pub fn supports(elem: ElemType, device: &DeviceProperties) -> Result<(), Refusal> {
    match device.supports_type(elem) {
        true => Ok(()),
        false => Err(Refusal::ElementType {
            got: format!("{elem:?}"),
            hint: match elem {
                ElemType::Float(FloatKind::F16) => "f32",
                _ => "f16 or f32",
            },
        }),
    }
}

/// The widest vector whose loads start at multiples of its own length wherever `lengths` (rows, parts of
/// rows and strides, in elements) begin.
pub(crate) fn width(device: &DeviceProperties, elem: ElemType, lengths: &[usize]) -> usize {
    let fits =
        |w: &usize| w * elem.size() <= LOAD_BYTES && lengths.iter().all(|n| n.is_multiple_of(*w));
    device
        .io_optimized_vector_sizes(elem.size())
        .find(fits)
        .unwrap_or(1)
}

/// Cubes for `total` units that work alone.
pub(crate) fn alone(client: &Client, total: usize) -> (CubeCount, CubeDim) {
    let dim = CubeDim::new_1d(UNITS);
    let count = cubecl::calculate_cube_count_elemwise(client, total, dim);
    (count, dim)
}

/// `count` cubes of `units` units, folded into the device's grid; cubes past `count` must stop.
pub(crate) fn cubes(client: &Client, count: usize, units: usize) -> (CubeCount, CubeDim) {
    let dim = CubeDim::new_1d(units as u32);
    let count = cubecl::calculate_cube_count_elemwise(client, count * units, dim);
    (count, dim)
}

/// The first `len` elements of a buffer that holds at least as many.
#[allow(unsafe_code)]
pub(crate) fn buffer(handle: &Handle, len: usize) -> BufferArg {
    // SAFETY: the callers' contract, handed on to theirs: every buffer's length is documented.
    unsafe { BufferArg::from_raw_parts(handle.clone(), len) }
}
