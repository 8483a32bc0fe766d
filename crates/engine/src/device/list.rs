//! The devices of this machine, in the order in which choices count them.
//!
//! `found` only enumerates; `list_devices` also opens each device to ask what it can do, which on a
//! GPU makes a context (some tens of milliseconds and a little memory each).

#[cfg(any(feature = "flex", feature = "cube"))]
use super::choice::DeviceChoice;
#[cfg(feature = "wgpu")]
use super::wgpu::{Api, adapters};
use super::{choice::Backend, info::DeviceInfo};
#[cfg(feature = "flex")]
use crate::{
    device::{Capabilities, DeviceKind},
    memory,
};

/// A device of the list, and the means to make it.
#[derive(Debug, Clone)]
#[cfg_attr(
    not(any(feature = "flex", feature = "cube")),
    allow(dead_code, reason = "without any backend there is no device")
)]
pub(super) struct Found {
    pub(super) info: DeviceInfo,
    pub(super) handle: Handle,
}

/// The source of a burn device.
#[derive(Debug, Clone)]
pub(super) enum Handle {
    #[cfg(feature = "flex")]
    Flex,
    #[cfg(feature = "cube")]
    Cube(cubecl::Device),
}

impl Handle {
    /// The burn device. Opens nothing yet: CubeCL opens a device at first use.
    pub(super) fn device(&self) -> burn::tensor::Device {
        // By place, not by reference: without any backend there is no handle, and no arm.
        match *self {
            #[cfg(feature = "flex")]
            Handle::Flex => burn::tensor::Device::flex(),
            #[cfg(feature = "cube")]
            Handle::Cube(ref device) => burn::tensor::Device::new(device.clone()),
        }
    }
}

/// Lists every device of this machine that this build can use, opened and with its capabilities.
///
/// flex first, then each built-in GPU backend. A device that cannot be opened has
/// `capabilities: None`. Never fails: a machine without drivers lists flex only.
pub fn list_devices() -> Vec<DeviceInfo> {
    let mut found = found(None);
    for device in &mut found {
        ask(device);
    }
    found.into_iter().map(|f| f.info).collect()
}

/// The devices of one backend, or of all that this build has, without opening any.
pub(super) fn found(only: Option<Backend>) -> Vec<Found> {
    let asked = |backend: &Backend| only.is_none_or(|only| only == *backend);
    Backend::ALL
        .into_iter()
        .filter(asked)
        .flat_map(|backend| match backend {
            #[cfg(feature = "flex")]
            Backend::Flex => vec![flex()],
            #[cfg(feature = "cuda-runtime")]
            Backend::Cuda => super::cube::cuda_devices(),
            #[cfg(feature = "wgpu")]
            Backend::Wgpu => adapters(Api::Auto),
            #[cfg(feature = "vulkan")]
            Backend::Vulkan => adapters(Api::Vulkan),
            #[cfg(feature = "metal")]
            Backend::Metal => adapters(Api::Metal),
            #[allow(
                unreachable_patterns,
                reason = "which are left depends on the features"
            )]
            _ => Vec::new(),
        })
        .collect()
}

/// True where the compiler of the device's kernels can be loaded.
pub(super) fn compiler_present(found: &Found) -> bool {
    match found.handle {
        #[cfg(feature = "flex")]
        Handle::Flex => true,
        #[cfg(feature = "cube")]
        Handle::Cube(ref device) => super::cube::compiler_present(device),
    }
}

/// Opens the device and fills in its capabilities. Returns false where it cannot be opened.
pub(super) fn ask(found: &mut Found) -> bool {
    match found.handle {
        #[cfg(feature = "flex")]
        Handle::Flex => true,
        #[cfg(feature = "cube")]
        Handle::Cube(ref device) => super::cube::ask(device, &mut found.info),
    }
}

#[cfg(feature = "flex")]
fn flex() -> Found {
    use burn::tensor::DType;

    let device = burn::tensor::Device::flex();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Found {
        info: DeviceInfo {
            choice: DeviceChoice::FLEX,
            name: format!("{cores} CPU threads"),
            kind: DeviceKind::Cpu,
            backend: "flex (pure Rust)".to_string(),
            memory: memory::system_available(),
            capabilities: Some(Capabilities {
                f16: device.supports_dtype(DType::F16),
                bf16: device.supports_dtype(DType::BF16),
                plane_ops: false,
                plane_size: (1, 1),
                matrix_units: Vec::new(),
                max_shared_memory: None,
                max_units_per_cube: None,
                max_binding: None,
            }),
        },
        handle: Handle::Flex,
    }
}

/// The choice that names the `index`-th device of `backend`.
#[cfg(feature = "cube")]
pub(super) fn named(backend: Backend, index: usize) -> DeviceChoice {
    DeviceChoice::Named { backend, index }
}

/// Backends of this build, for error messages.
pub(super) fn built_in() -> String {
    let names: Vec<_> = Backend::ALL
        .into_iter()
        .filter(|b| b.built_in())
        .map(Backend::name)
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listing_never_fails_and_names_are_unique() {
        let devices = list_devices();
        let mut names: Vec<_> = devices.iter().map(|d| d.choice.to_string()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), devices.len());
        #[cfg(feature = "flex")]
        assert!(devices.iter().any(|d| d.choice == DeviceChoice::FLEX));
    }
}
