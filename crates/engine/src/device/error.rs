//! Errors of naming and opening devices, each with the value asked for and the devices there are.

use thiserror::Error;

use super::choice::Backend;

/// Error of naming or opening a device.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The text is no device name.
    #[error(
        "device `{got}` is not a device name; use auto, flex, wgpu[:n], vulkan[:n], metal[:n] or \
         cuda[:n], n counting from 0 (`sparse-accelerate doctor` lists them)"
    )]
    UnknownName {
        /// The text given.
        got: String,
    },
    /// The backend was not compiled in.
    #[error(
        "device `{got}`: this build has no {} backend; built in: {built_in}. \
         Build with cargo feature `{}`", .backend.name(), .backend.name()
    )]
    NotBuiltIn {
        /// The choice given.
        got: String,
        /// Its backend, whose name is the cargo feature to add.
        backend: Backend,
        /// Backends of this build.
        built_in: String,
    },
    /// The backend is there; the device is not.
    #[error("device `{got}`: {} has {available} here{list}", .backend.name())]
    NoSuchDevice {
        /// The choice given.
        got: String,
        /// Its backend.
        backend: Backend,
        /// Number of devices, in words.
        available: String,
        /// The devices, one a line, or advice when there are none.
        list: String,
    },
    /// The compiler of CUDA kernels is missing; they are compiled when they are first needed.
    #[error(
        "device `{got}`: NVRTC (libnvrtc.so), which compiles CUDA kernels, cannot be loaded; install the \
         CUDA toolkit or put its libraries on the loader's path (and name its folder in CUDA_PATH for \
         the headers), or use a build with the feature cuda-llvm, or the device flex"
    )]
    NoKernelCompiler {
        /// The device asked for.
        got: String,
    },
    /// The driver lists the device but will not open it.
    #[error(
        "device `{got}` ({name}) is listed but could not be opened; update its driver or choose \
         another device (`sparse-accelerate doctor` lists them)"
    )]
    CannotOpen {
        /// The choice given.
        got: String,
        /// The driver's name for it.
        name: String,
    },
}
