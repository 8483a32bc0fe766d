//! Names of devices as a person writes them: `auto`, `flex`, `wgpu[:n]`, `vulkan[:n]`, `metal[:n]`, `cuda[:n]`.
//!
//! The index counts the devices of that backend in the order `list_devices` gives them (discrete
//! GPUs first, software drivers last), so that a listed name can be given back as a choice.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

use super::DeviceError;

/// A compute backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// burn-flex: pure Rust on the CPU.
    Flex,
    /// wgpu on whichever graphics API the machine offers.
    Wgpu,
    /// wgpu pinned to Vulkan, with SPIR-V.
    Vulkan,
    /// wgpu pinned to Metal, with MSL.
    Metal,
    /// CUDA.
    Cuda,
}

impl Backend {
    /// Every backend this project knows, built in or not, in the order of listing.
    pub const ALL: [Backend; 5] = [
        Backend::Flex,
        Backend::Cuda,
        Backend::Wgpu,
        Backend::Vulkan,
        Backend::Metal,
    ];

    /// The name, which is also the cargo feature that builds it in.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Flex => "flex",
            Backend::Wgpu => "wgpu",
            Backend::Vulkan => "vulkan",
            Backend::Metal => "metal",
            Backend::Cuda => "cuda",
        }
    }

    /// True where this build contains the backend.
    pub fn built_in(self) -> bool {
        match self {
            Backend::Flex => cfg!(feature = "flex"),
            Backend::Wgpu => cfg!(feature = "wgpu"),
            Backend::Vulkan => cfg!(feature = "vulkan"),
            Backend::Metal => cfg!(feature = "metal"),
            Backend::Cuda => cfg!(feature = "cuda-runtime"),
        }
    }
}

/// The device that a user asks for. `Display` gives back the text that `FromStr` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceChoice {
    /// The best GPU, else the CPU; never a software driver.
    Auto,
    /// The `index`-th device of `backend`.
    Named {
        /// The backend.
        backend: Backend,
        /// Position in that backend's list; always 0 for flex.
        index: usize,
    },
}

impl DeviceChoice {
    /// The CPU.
    pub const FLEX: DeviceChoice = DeviceChoice::Named {
        backend: Backend::Flex,
        index: 0,
    };
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::UnknownName {
            got: text.to_string(),
        };
        if text == "auto" {
            return Ok(DeviceChoice::Auto);
        }
        let (name, index) = match text.split_once(':') {
            None => (text, 0),
            Some((name, index)) => (name, index.parse().map_err(|_| unknown())?),
        };
        let backend = Backend::ALL
            .into_iter()
            .find(|b| b.name() == name)
            .ok_or_else(unknown)?;
        if backend == Backend::Flex && text != "flex" {
            return Err(unknown());
        }
        Ok(DeviceChoice::Named { backend, index })
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Named { backend, .. } if *backend == Backend::Flex => f.write_str("flex"),
            DeviceChoice::Named { backend, index } => write!(f, "{}:{index}", backend.name()),
        }
    }
}

impl Serialize for DeviceChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for text in ["auto", "flex", "wgpu:0", "vulkan:3", "metal:1", "cuda:7"] {
            assert_eq!(text.parse::<DeviceChoice>().expect(text).to_string(), text);
        }
        let bare: DeviceChoice = "cuda".parse().expect("cuda");
        assert_eq!(bare.to_string(), "cuda:0");
    }

    #[test]
    fn wrong_names_say_what_is_allowed() {
        for text in [
            "", "gpu", "cuda:", "cuda:x", "cuda:-1", "flex:0", "CUDA", "auto:1",
        ] {
            let error = text.parse::<DeviceChoice>().expect_err(text).to_string();
            assert!(error.contains("wgpu[:n]"), "{error}");
        }
    }
}
