//! Why a problem will not run on a device, as data.

use cubecl::ir::{DeviceProperties, ElemType};
use thiserror::Error;

/// A refusal: what was asked, the value, the device's limit, the way out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The device does not compute with this element type.
    #[error("element type {got} is not supported by this device; use {hint}")]
    ElementType {
        /// The type asked for.
        got: String,
        /// Types that would work.
        hint: &'static str,
    },
    /// The device has too little of a resource.
    #[error("{resource} is {limit} on this device, {needed} is needed; use another device")]
    Resource {
        /// Which limit.
        resource: &'static str,
        /// The need of the smallest tile.
        needed: usize,
        /// The limit of the device.
        limit: usize,
    },
    /// Bytes are read by the tier for few query rows and many keys alone.
    #[error(
        "keys and values of bytes are read for few query rows and many keys, not for {rows} rows of this \
         problem; dequantize them first"
    )]
    Bytes {
        /// Query rows of the problem.
        rows: usize,
    },
    /// The problem is too large for one launch or one buffer.
    #[error("{what} is {got}, this device takes at most {limit}; use a smaller chunk or batch")]
    TooLarge {
        /// Which quantity.
        what: &'static str,
        /// The value got.
        got: usize,
        /// The limit.
        limit: usize,
    },
}

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
