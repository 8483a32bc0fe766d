//! Properties of a device, as the kernels' plans ask for them.
//!
//! Capabilities come from the CubeCL client, because that is what decides which kernel runs; a
//! device that was only enumerated has none yet ([`DeviceInfo::capabilities`] is `None`).

use serde::Serialize;

use super::choice::DeviceChoice;

/// Kind of hardware behind a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// A GPU with its own memory.
    Discrete,
    /// A GPU that shares the system's memory.
    Integrated,
    /// A GPU handed through to a virtual machine.
    Virtual,
    /// The CPU itself, natively.
    Cpu,
    /// The CPU behind a graphics API: a software Vulkan driver such as llvmpipe. Slow; for tests.
    Software,
    /// The driver does not say.
    Other,
}

impl DeviceKind {
    /// One lower-case word for people.
    pub fn name(self) -> &'static str {
        match self {
            DeviceKind::Discrete => "discrete GPU",
            DeviceKind::Integrated => "integrated GPU",
            DeviceKind::Virtual => "virtual GPU",
            DeviceKind::Cpu => "CPU",
            DeviceKind::Software => "software driver",
            DeviceKind::Other => "unknown kind",
        }
    }

    /// True where `auto` may take it: real hardware made for this work.
    pub fn is_gpu(self) -> bool {
        matches!(
            self,
            DeviceKind::Discrete | DeviceKind::Integrated | DeviceKind::Virtual
        )
    }
}

/// Features and limits that decide which kernels a device can run. Sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// Tensors of f16 can be stored and computed with.
    pub f16: bool,
    /// Tensors of bf16 can be stored and computed with.
    pub bf16: bool,
    /// Plane (subgroup) operations.
    pub plane_ops: bool,
    /// Smallest and largest plane size.
    pub plane_size: (u32, u32),
    /// Matrix-unit shapes as `MxNxK a*b+c`, empty where the device has none.
    pub matrix_units: Vec<String>,
    /// Shared memory of one cube.
    pub max_shared_memory: Option<u64>,
    /// Units (threads) of one cube.
    pub max_units_per_cube: Option<u32>,
    /// Largest single tensor.
    pub max_binding: Option<u64>,
}

/// One device of this machine, under the name by which it is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceInfo {
    /// The name to pass as a choice, with its index.
    pub choice: DeviceChoice,
    /// The name the driver gives.
    pub name: String,
    /// Kind of hardware behind it.
    pub kind: DeviceKind,
    /// Backend, graphics API and driver, for people.
    pub backend: String,
    /// Memory of the device in bytes where the runtime tells; for flex what the system has free.
    pub memory: Option<u64>,
    /// Features and limits; `None` when the device could not be opened or was not asked.
    pub capabilities: Option<Capabilities>,
}

impl DeviceInfo {
    /// `name (kind)`.
    pub fn title(&self) -> String {
        format!("{} ({})", self.name, self.kind.name())
    }
}
