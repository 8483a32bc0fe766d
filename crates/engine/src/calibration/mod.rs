//! Measurements of `calibrate` on a device: prices of the attention kernels, and the prompt length from which
//! a sparse pattern is faster than dense attention.
//!
//! One JSON file per device, element type, head dimension and group size, and one for every model that was measured itself,
//! in the user's cache directory: `SPARSE_ACCELERATE_CACHE` if it is set, else `sparse-accelerate` under the platform's. No file means
//! nothing was measured; a file that cannot be understood is an error, never a silent default.

mod break_even;
mod dir;
mod error;
mod record;
mod store;

pub use break_even::BreakEven;
pub use dir::{CACHE_ENV, cache_dir};
pub use error::CalibrationError;
pub use record::{LengthRecord, ModelRecord};
pub use store::{Store, save};

use serde::{Deserialize, Serialize};
use sparse_accelerate::{AttentionSettings, select::Prices};
use sparse_accelerate_checkpoint::WeightDtype;

use crate::device::DeviceInfo;

/// Version of the file's meaning; a file of another version is refused.
pub const SCHEMA: u32 = 2;

/// Device, element type and layer shape of a calibration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationKey {
    /// Name of the device as its driver gives it.
    pub device: String,
    /// Backend, as devices are chosen by: `cuda`, `vulkan`, ...
    pub backend: String,
    /// Element type: `f32`, `f16`, `bf16`.
    pub dtype: String,
    /// Elements of a head.
    pub head_dim: usize,
    /// Query heads of a KV head.
    pub group: usize,
}

impl CalibrationKey {
    /// The key of a device, an element type and a layer's shape.
    pub fn new(info: &DeviceInfo, dtype: WeightDtype, head_dim: usize, group: usize) -> Self {
        let choice = info.choice.to_string();
        let backend = choice.split(':').next().unwrap_or_default();
        Self {
            device: info.name.clone(),
            backend: backend.into(),
            dtype: dtype.to_string(),
            head_dim,
            group,
        }
    }
}

/// Measured prices and break-even length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Version of the format, [`SCHEMA`].
    pub schema: u32,
    /// Device, element type and layer shape.
    pub key: CalibrationKey,
    /// Version of the program that measured.
    pub version: String,
    /// Query and KV heads of the measured layer.
    pub heads: [usize; 2],
    /// Prices, in units of one dense tile.
    pub costs: Prices,
    /// Nanoseconds of one dense tile of one query head.
    pub dense_tile_ns: f64,
    /// Largest relative distance of a measured time from the one that the prices give.
    pub misfit: f64,
    /// The break-even length.
    pub break_even: BreakEven,
}

impl Calibration {
    /// Gives the rates of attention, FLOP/s: over all pairs, and over chosen pairs counted by those. A tile of 64 queries by 64
    /// keys is `4 * 64 * 64 * head_dim` FLOPs. `None` where a price is 0.
    pub fn attention_rates(&self) -> Option<[f64; 2]> {
        let flops = (4 * 64 * 64 * self.key.head_dim) as f64;
        let dense = flops / (self.dense_tile_ns * 1e-9);
        let price = f64::from(self.costs.tile / self.costs.dense_tile);
        let rates = [dense, dense / price];
        let usable = |rate: &f64| rate.is_finite() && *rate > 0.0;
        rates.iter().all(usable).then_some(rates)
    }

    /// Writes the prices, and the least sparse length where it is known, into settings whose pattern chooses
    /// from the input. Returns false for other settings, which stay as they are.
    pub fn apply(&self, settings: &mut AttentionSettings) -> bool {
        if !settings.selects() {
            return false;
        }
        settings.selection.costs = self.costs;
        if let Some(length) = self.break_even.min_sparse_len() {
            settings.min_sparse_len = length;
        }
        true
    }
}
