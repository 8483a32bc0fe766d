//! Known GPU models: the figures their makers publish, and the share of them that this program reaches.
//!
//! For planning without the GPU. Memory, bandwidth and peak rates are public facts, each with its source in
//! `table`; shares are measured where a run says so, else stated.

mod table;

use serde::Serialize;
use thiserror::Error;

pub use table::GPU_MODELS;

/// A GPU as its maker describes it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GpuModel {
    /// Short name in lower case, such as `rtx-a5000`.
    pub name: &'static str,
    /// Words of a driver's name of the GPU, one after the other, without case; the longest match counts.
    pub title: &'static str,
    /// Memory that the driver reports, bytes; after error correction where that is on by default.
    pub memory: u64,
    /// Memory bandwidth, bytes per second.
    pub bandwidth: f64,
    /// Peak of dense bf16 matrix products with f32 sums, FLOP/s.
    pub peak: f64,
    /// Shares of the peak that a prefill reaches.
    pub shares: Shares,
}

/// Shares of a GPU's peak that a prefill reaches, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Shares {
    /// Everything that is not attention, counted as its matrix products.
    pub linear: f64,
    /// Attention, counted as the products of the pairs it keeps.
    pub attention: f64,
    /// Source of both.
    pub source: Source,
}

/// Source of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", content = "what", rename_all = "kebab-case")]
pub enum Source {
    /// Measured, by this run of the repository or on this device.
    Measured(&'static str),
    /// Assumed, for this reason.
    Stated(&'static str),
    /// Given by the caller.
    Given,
}

/// Memory that a driver keeps for itself of what it reports: free memory of an idle GPU without a display is
/// 0.3 to 0.5 GiB below it.
pub const DRIVER_RESERVE: u64 = 512 << 20;

impl GpuModel {
    /// Memory that a program can have, bytes.
    pub fn usable(&self) -> u64 {
        self.memory - DRIVER_RESERVE
    }

    /// Rate of everything that is not attention, FLOP/s.
    pub fn linear(&self) -> f64 {
        self.peak * self.shares.linear
    }

    /// Rate of attention, FLOP/s.
    pub fn attention(&self) -> f64 {
        self.peak * self.shares.attention
    }

    /// Finds a model by its short name, with or without its `rtx-`.
    ///
    /// # Errors
    /// [`UnknownGpu`] with every known name.
    pub fn named(name: &str) -> Result<&'static GpuModel, UnknownGpu> {
        let name = name.trim().to_ascii_lowercase();
        let is = |gpu: &&GpuModel| gpu.name == name || gpu.name.strip_prefix("rtx-") == Some(&name);
        GPU_MODELS.iter().find(is).ok_or(UnknownGpu { got: name })
    }

    /// Finds the model of a driver's name, if it is known.
    pub fn of_device(name: &str, memory: Option<u64>) -> Option<&'static GpuModel> {
        let split = |text: &str| -> Vec<String> {
            let words = text.split(|c: char| !c.is_ascii_alphanumeric());
            words.map(str::to_ascii_lowercase).collect()
        };
        let name = split(name);
        let holds = |gpu: &&GpuModel| {
            let title = split(gpu.title);
            name.windows(title.len()).any(|words| *words == title)
        };
        // The A100 exists with two sizes under names that do not always say which.
        let far = |gpu: &&GpuModel| gpu.memory.abs_diff(memory.unwrap_or(gpu.memory));
        let length = GPU_MODELS.iter().filter(holds).map(|gpu| gpu.title.len());
        let longest = length.max()?;
        let matching = GPU_MODELS.iter().filter(holds);
        matching
            .filter(|gpu| gpu.title.len() == longest)
            .min_by_key(far)
    }
}

/// A name that is not in the table.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "device `{got}` is neither a known GPU nor a device of this machine; known GPUs: {}; a device is \
     auto, flex, wgpu[:n], vulkan[:n], metal[:n] or cuda[:n]",
    known()
)]
pub struct UnknownGpu {
    /// The name.
    pub got: String,
}

fn known() -> String {
    let names: Vec<_> = GPU_MODELS.iter().map(|gpu| gpu.name).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for (at, gpu) in GPU_MODELS.iter().enumerate() {
            assert_eq!(GpuModel::named(gpu.name), Ok(gpu));
            assert!(GPU_MODELS[..at].iter().all(|other| other.name != gpu.name));
            assert!(gpu.memory > 8 << 30 && gpu.memory < 200 << 30, "{gpu:?}");
            assert!(gpu.bandwidth > 1e11 && gpu.peak > 1e13, "{gpu:?}");
            for share in [gpu.shares.linear, gpu.shares.attention] {
                assert!((0.3..0.9).contains(&share), "{gpu:?}");
            }
        }
        for (typed, name) in [(" RTX-A5000", "rtx-a5000"), ("5090", "rtx-5090")] {
            assert_eq!(GpuModel::named(typed).map(|gpu| gpu.name), Ok(name));
        }
    }

    #[test]
    fn an_unknown_model_lists_the_known_ones() {
        let error = GpuModel::named("rtx-9999")
            .expect_err("unknown")
            .to_string();
        for part in ["rtx-9999", "rtx-a5000", "h200", "cuda[:n]"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn drivers_names_lead_to_models() {
        for (driver, memory, name) in [
            ("NVIDIA RTX A5000", None, "rtx-a5000"),
            ("NVIDIA GeForce RTX 3090", None, "rtx-3090"),
            ("NVIDIA H100 80GB HBM3", None, "h100"),
            ("NVIDIA H200", None, "h200"),
            ("NVIDIA L40S", None, "l40s"),
            ("NVIDIA L4", None, "l4"),
            ("NVIDIA A100-SXM4-80GB", Some(85_000_000_000), "a100-80g"),
            ("NVIDIA A100-PCIE", Some(42_000_000_000), "a100-40g"),
            ("NVIDIA A10", None, "a10"),
            ("NVIDIA RTX 6000 Ada Generation", None, "rtx-6000-ada"),
        ] {
            let found = GpuModel::of_device(driver, memory).map(|gpu| gpu.name);
            assert_eq!(found, Some(name), "{driver}");
        }
        assert_eq!(
            GpuModel::of_device("llvmpipe (LLVM 15.0.7, 256 bits)", None),
            None
        );
        for other in ["NVIDIA GeForce GTX 1080", "NVIDIA L40", "NVIDIA A1000"] {
            assert_eq!(GpuModel::of_device(other, None), None, "{other}");
        }
    }

    #[test]
    fn a_24_gb_gpu_with_error_correction_has_22_gib() {
        let gpu = GpuModel::named("rtx-a5000").expect("a known GPU");
        assert!((gpu.usable() as f64 / (1u64 << 30) as f64 - 22.0).abs() < 0.05);
        assert!((gpu.linear() / 1e12 - 65.5).abs() < 0.1);
    }
}
