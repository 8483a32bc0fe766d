//! The resources of a launch against the limits of a device.

use cubecl::ir::{DeviceProperties, ElemType};
pub use sparse_accelerate_contract::Refusal;

/// Refuses a cube that needs more shared memory (bytes) or units than the device has.
pub(crate) fn cube_fits(
    shared_bytes: usize,
    units: usize,
    device: &DeviceProperties,
) -> Result<(), Refusal> {
    let hardware = &device.hardware;
    let most = hardware.max_units_per_cube as usize;
    for (resource, needed, limit) in [
        (
            "shared memory per cube (bytes)",
            shared_bytes,
            hardware.max_shared_memory_size,
        ),
        ("units per cube", units, most),
    ] {
        if needed > limit {
            return Err(Refusal::Resource {
                resource,
                needed,
                limit,
            });
        }
    }
    Ok(())
}

/// The plan of the first way that fits. The last way is the one that needs least, so its refusal says what
/// is missing.
pub(crate) fn first_that_fits<W, P>(
    ways: Vec<W>,
    elem: ElemType,
    plan: impl Fn(W) -> Result<P, Refusal>,
) -> Result<P, Refusal> {
    let mut refusal = None;
    for way in ways {
        match plan(way) {
            Ok(plan) => return Ok(plan),
            Err(error) => refusal = Some(error),
        }
    }
    Err(refusal.unwrap_or(Refusal::ElementType {
        got: format!("{elem:?}"),
        hint: "f16 or f32",
    }))
}
