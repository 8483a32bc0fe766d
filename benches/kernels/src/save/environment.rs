//! Environment of a run: GPU, driver, compiler and commit.
//!
//! The GPU is described as far as the driver reports without a management library, the sources by
//! their commit if the program runs in a git tree. Two runs of equal environments belong to one session.

use std::process::Command;

#[cfg(feature = "cuda-runtime")]
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// The device and what is under it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Gpu {
    /// Name that the driver reports.
    pub(crate) name: String,
    /// Compute capability of CUDA devices, `9.0`.
    pub(crate) compute_capability: Option<String>,
    /// Version of the driver.
    pub(crate) driver: Option<String>,
    /// CUDA version that the driver offers, `13.0`.
    pub(crate) cuda: Option<String>,
    /// Name of the compiler of the kernels.
    pub(crate) compiler: String,
    /// Number of multiprocessors, if the device reports it.
    pub(crate) multiprocessors: Option<u32>,
    /// Shared memory of a cube in KiB.
    pub(crate) shared_kib: usize,
}

/// The environment of a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Environment {
    /// Day in UTC, `2026-11-25`.
    pub(crate) date: String,
    #[serde(flatten)]
    pub(crate) gpu: Gpu,
    /// Operating system and processor.
    pub(crate) system: String,
    /// Version of this program.
    pub(crate) version: String,
    /// Commit of the sources.
    pub(crate) commit: Option<String>,
    /// True if sources differ from that commit.
    pub(crate) changed: Option<bool>,
}

impl Environment {
    /// Environment of this machine today.
    pub(crate) fn new(gpu: Gpu) -> Self {
        let commit = git(&["rev-parse", "--short=12", "HEAD"]);
        // Run folders change as a session goes on; nothing else may.
        let state = git(&[
            "status",
            "--porcelain",
            "--",
            ":/",
            ":(exclude,top)benches/runs",
        ]);
        Self {
            date: chrono::Utc::now().date_naive().to_string(),
            gpu,
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            version: env!("CARGO_PKG_VERSION").into(),
            changed: commit.as_ref().and(state.map(|s| !s.is_empty())),
            commit,
        }
    }
}

/// Output of a git command here; nothing without git or outside a tree.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_string())
}

/// Names and versions of the first device.
#[cfg(any(feature = "cuda-runtime", feature = "wgpu"))]
#[derive(Debug, Default)]
pub(crate) struct Driver {
    pub(crate) name: String,
    pub(crate) compute_capability: Option<String>,
    pub(crate) driver: Option<String>,
    pub(crate) cuda: Option<String>,
}

#[cfg(feature = "cuda-runtime")]
impl Driver {
    /// Asks the CUDA driver.
    #[allow(unsafe_code)]
    pub(crate) fn cuda() -> Result<Self> {
        let context = cudarc::driver::CudaContext::new(0)?;
        let (major, minor) = context.compute_capability()?;
        let mut version = 0;
        // SAFETY: the call writes one integer, which outlives it.
        unsafe { cudarc::driver::sys::cuDriverGetVersion(&mut version) }.result()?;
        let loaded = std::fs::read_to_string("/proc/driver/nvidia/version").ok();
        Ok(Self {
            name: context.name()?,
            compute_capability: Some(format!("{major}.{minor}")),
            driver: loaded.as_deref().and_then(kernel_module),
            cuda: Some(format!("{}.{}", version / 1000, version % 1000 / 10)),
        })
    }
}

#[cfg(all(feature = "wgpu", not(feature = "cuda-runtime")))]
impl Driver {
    /// Opens the device and asks its adapter.
    pub(crate) fn wgpu(device: &cubecl::device::WgpuDevice) -> Self {
        let options = cubecl::wgpu::RuntimeOptions::default();
        let setup = cubecl::wgpu::init_setup::<cubecl::wgpu::AutoGraphicsApi>(device, options);
        let info = setup.adapter.get_info();
        let driver = format!("{} {}", info.driver, info.driver_info);
        Self {
            name: info.name,
            driver: Some(driver.trim().to_string()),
            ..Self::default()
        }
    }
}

/// The version in the first line of `/proc/driver/nvidia/version`.
#[cfg_attr(not(feature = "cuda-runtime"), allow(dead_code))]
pub(super) fn kernel_module(text: &str) -> Option<String> {
    let is_version =
        |word: &&str| word.contains('.') && word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let mut words = text.lines().next()?.split_whitespace();
    words.find(is_version).map(Into::into)
}
