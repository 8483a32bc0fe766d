//! Devices: naming, listing and choosing them.
//!
//! Everything is enumerated before a CubeCL device is made: a device that does not exist would
//! panic on CubeCL's own thread at first use. Enumeration opens nothing and needs no Vulkan loader.
//! `auto` takes a real GPU or the CPU and says why; a software Vulkan driver only runs by name.

mod choice;
#[cfg(feature = "cube")]
mod cube;
mod defaults;
mod error;
mod info;
mod list;
mod select;
#[cfg(feature = "wgpu")]
mod wgpu;

pub use choice::{Backend, DeviceChoice};
pub use error::DeviceError;
pub use info::{Capabilities, DeviceInfo, DeviceKind};
pub use list::list_devices;
pub use select::{Selected, select};
