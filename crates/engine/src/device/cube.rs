//! Capabilities of CubeCL devices, and the list of CUDA devices.
//!
//! The first client of a device opens it, on CubeCL's own thread, and panics when the driver
//! refuses. That panic is caught here, so a broken driver is a device without capabilities.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cubecl::{
    features::{MmaConfig, Plane, TypeUsage},
    ir::{DeviceProperties, ElemType, FloatKind},
};

use super::info::{Capabilities, DeviceInfo};

/// Opens the device and fills in memory, name and capabilities. False when it will not open.
pub(super) fn ask(device: &cubecl::Device, info: &mut DeviceInfo) -> bool {
    let opened = catch_unwind(AssertUnwindSafe(|| device.client().properties_shared()));
    let Ok(properties) = opened else {
        return false;
    };
    if !properties.identity.name.is_empty() {
        info.name.clone_from(&properties.identity.name);
    }
    info.memory = properties.memory.max_memory();
    info.capabilities = Some(capabilities(&properties));
    true
}

/// True where the compiler of this backend's kernels can be loaded: NVRTC, where CUDA goes through C++.
pub(super) fn compiler_present(device: &cubecl::Device) -> bool {
    #[cfg(feature = "cuda")]
    if matches!(device, cubecl::Device::Cuda(_)) {
        // SAFETY: the call only tries to load libraries by their names.
        #[allow(unsafe_code)]
        return unsafe { cudarc::nvrtc::sys::is_culib_present() };
    }
    let _ = device;
    true
}

fn capabilities(properties: &DeviceProperties) -> Capabilities {
    let hardware = &properties.hardware;
    let computes = |kind| {
        let usage = properties.type_usage(ElemType::Float(kind));
        usage.contains(TypeUsage::Arithmetic) && usage.contains(TypeUsage::Buffer)
    };
    let matmul = &properties.features.matmul;
    let mut matrix_units: Vec<_> = matmul.cmma.iter().chain(&matmul.mma).map(shape).collect();
    matrix_units.sort();
    matrix_units.dedup();
    Capabilities {
        f16: computes(FloatKind::F16),
        bf16: computes(FloatKind::BF16),
        plane_ops: properties.features.plane.contains(Plane::Ops),
        plane_size: (hardware.plane_size_min, hardware.plane_size_max),
        matrix_units,
        max_shared_memory: Some(hardware.max_shared_memory_size as u64),
        max_units_per_cube: Some(hardware.max_units_per_cube),
        max_binding: Some(properties.memory.max_page_size),
    }
}

fn shape(config: &MmaConfig) -> String {
    let MmaConfig { m, n, k, .. } = config;
    let [a, b, c] = [config.a_type, config.b_type, config.cd_type].map(|t| t.to_string());
    format!("{m}x{n}x{k} {a}*{b}+{c}")
}

/// The CUDA devices. Empty where the driver library is absent.
#[cfg(feature = "cuda-runtime")]
pub(super) fn cuda_devices() -> Vec<super::list::Found> {
    use super::{
        choice::Backend,
        info::DeviceKind,
        list::{Found, Handle, named},
    };

    cubecl::Device::enumerate_all()
        .into_iter()
        .filter(|device| matches!(device, cubecl::Device::Cuda(_)))
        .enumerate()
        .map(|(index, device)| Found {
            info: DeviceInfo {
                choice: named(Backend::Cuda, index),
                name: format!("CUDA device {index}"),
                kind: DeviceKind::Discrete,
                backend: "cuda".to_string(),
                memory: None,
                capabilities: None,
            },
            handle: Handle::Cube(device),
        })
        .collect()
}
