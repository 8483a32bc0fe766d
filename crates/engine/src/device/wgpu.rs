//! wgpu adapters, enumerated without opening any, mapped to the devices CubeCL will make.
//!
//! CubeCL names an adapter by its kind and its position among adapters of that kind on one
//! graphics API; this file counts the same way (CubeCL 0.11.3, `adapter_device_ids`) and pins the
//! API, so that a choice lands on the adapter it was listed for. OpenGL is left out: its compute
//! shaders lack what the kernels need.
//! Enumerated once per process: Vulkan loaders dislike instances that come and go on threads.

use std::sync::Mutex;

use cubecl::{
    device::{WgpuBackend, WgpuDevice, WgpuDeviceKind},
    wgpu::{AutoGraphicsApi, wgpu},
};

use super::{
    choice::Backend,
    info::{DeviceInfo, DeviceKind},
    list::{Found, Handle, named},
};

/// The graphics API to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    /// The first API with a GPU, else the first with anything.
    Auto,
    /// Vulkan only.
    #[cfg(feature = "vulkan")]
    Vulkan,
    /// Metal only.
    #[cfg(feature = "metal")]
    Metal,
}

/// The adapters on `api`: discrete GPUs first, software drivers last, otherwise in driver order.
pub(super) fn adapters(api: Api) -> Vec<Found> {
    let (backend, candidates) = match api {
        Api::Auto => (Backend::Wgpu, AutoGraphicsApi::chain()),
        #[cfg(feature = "vulkan")]
        Api::Vulkan => (Backend::Vulkan, vec![wgpu::Backend::Vulkan]),
        #[cfg(feature = "metal")]
        Api::Metal => (Backend::Metal, vec![wgpu::Backend::Metal]),
    };
    let mut counted = count(settle(&candidates));
    counted.sort_by_key(|(info, _)| rank(info.device_type));
    counted
        .into_iter()
        .enumerate()
        .map(|(index, (info, kind))| Found {
            info: DeviceInfo {
                choice: named(backend, index),
                name: info.name.clone(),
                kind: device_kind(info.device_type),
                backend: describe(backend, &info),
                memory: None,
                capabilities: None,
            },
            handle: Handle::Cube(cubecl::Device::Wgpu(
                WgpuDevice::new(kind).on(pinned(info.backend)),
            )),
        })
        .collect()
}

fn pinned(api: wgpu::Backend) -> WgpuBackend {
    match api {
        wgpu::Backend::Vulkan => WgpuBackend::Vulkan,
        wgpu::Backend::Metal => WgpuBackend::Metal,
        wgpu::Backend::Dx12 => WgpuBackend::Dx12,
        wgpu::Backend::Gl => WgpuBackend::Gl,
        _ => WgpuBackend::Auto,
    }
}

fn describe(backend: Backend, info: &wgpu::AdapterInfo) -> String {
    let driver = format!("{} {}", info.driver, info.driver_info);
    format!(
        "{} on {:?}, driver {}",
        backend.name(),
        info.backend,
        driver.trim()
    )
}

fn device_kind(kind: wgpu::DeviceType) -> DeviceKind {
    match kind {
        wgpu::DeviceType::DiscreteGpu => DeviceKind::Discrete,
        wgpu::DeviceType::IntegratedGpu => DeviceKind::Integrated,
        wgpu::DeviceType::VirtualGpu => DeviceKind::Virtual,
        wgpu::DeviceType::Cpu => DeviceKind::Software,
        wgpu::DeviceType::Other => DeviceKind::Other,
    }
}

fn rank(kind: wgpu::DeviceType) -> u8 {
    match kind {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    }
}

/// CubeCL's name for each adapter: every kind counts from zero on its own.
fn count(adapters: Vec<wgpu::AdapterInfo>) -> Vec<(wgpu::AdapterInfo, WgpuDeviceKind)> {
    let mut next = [0usize; 5];
    adapters
        .into_iter()
        .map(|info| {
            let slot = &mut next[usize::from(rank(info.device_type))];
            let index = *slot;
            *slot += 1;
            let kind = match info.device_type {
                wgpu::DeviceType::DiscreteGpu => WgpuDeviceKind::DiscreteGpu(index),
                wgpu::DeviceType::IntegratedGpu => WgpuDeviceKind::IntegratedGpu(index),
                wgpu::DeviceType::VirtualGpu => WgpuDeviceKind::VirtualGpu(index),
                wgpu::DeviceType::Other => WgpuDeviceKind::Other(index),
                wgpu::DeviceType::Cpu => WgpuDeviceKind::Cpu,
            };
            (info, kind)
        })
        // `Cpu` has no index in CubeCL: only the first software driver can be named.
        .scan(false, |seen_cpu, item| {
            let cpu = item.0.device_type == wgpu::DeviceType::Cpu;
            let repeated = cpu && std::mem::replace(seen_cpu, *seen_cpu || cpu);
            Some((!repeated).then_some(item))
        })
        .flatten()
        .collect()
}

/// The adapters of the first API with a GPU, else of the first with anything.
fn settle(candidates: &[wgpu::Backend]) -> Vec<wgpu::AdapterInfo> {
    let mut software_only = Vec::new();
    for &api in candidates.iter().filter(|api| **api != wgpu::Backend::Gl) {
        let adapters = probe(api);
        if adapters
            .iter()
            .any(|a| a.device_type != wgpu::DeviceType::Cpu)
        {
            return adapters;
        }
        if software_only.is_empty() {
            software_only = adapters;
        }
    }
    software_only
}

/// The adapters of one API, asked once per process.
fn probe(api: wgpu::Backend) -> Vec<wgpu::AdapterInfo> {
    static SEEN: Mutex<Vec<(wgpu::Backend, Vec<wgpu::AdapterInfo>)>> = Mutex::new(Vec::new());

    let mut seen = SEEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some((_, adapters)) = seen.iter().find(|(backend, _)| *backend == api) {
        return adapters.clone();
    }
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: api.into(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let adapters: Vec<_> = cubecl::future::block_on(instance.enumerate_adapters(api.into()))
        .iter()
        .map(wgpu::Adapter::get_info)
        .collect();
    seen.push((api, adapters.clone()));
    adapters
}
