//! Errors of cutting a model into stages.

use sparse_accelerate_models::ModelError;
use thiserror::Error;

use crate::memory::{Bytes, StageMemory};

/// Error of a split that cannot be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SplitError {
    /// The text is no split.
    #[error(
        "split `{got}` is none; give auto (fastest prefill that fits), by-memory (equal shares of memory) or \
         the layers of each device, such as 16,16"
    )]
    Unreadable {
        /// The text.
        got: String,
    },
    /// No device was given.
    #[error("split: 0 devices; give at least 1")]
    NoDevices,
    /// The number of counts is not that of the devices.
    #[error("split: {counts:?} is for {} devices, but there are {devices}", .counts.len())]
    Devices {
        /// The counts.
        counts: Vec<usize>,
        /// Devices.
        devices: usize,
    },
    /// The counts do not add up to the model's layers.
    #[error("split: {counts:?} is {} layers, but the model has {layers}", sum(.counts))]
    Layers {
        /// The counts.
        counts: Vec<usize>,
        /// Layers of the model.
        layers: usize,
    },
    /// A device without a layer.
    #[error(transparent)]
    Placement(#[from] ModelError),
    /// More devices than layers.
    #[error("split: {devices} devices for {layers} layers; every device holds at least one")]
    TooManyDevices {
        /// Devices.
        devices: usize,
        /// Layers of the model.
        layers: usize,
    },
    /// Shares of a memory that is not known.
    #[error(
        "split: by-memory needs the memory of every device, but {device} does not tell; limit it, or \
         split by auto or by counts"
    )]
    UnknownMemory {
        /// The device.
        device: String,
    },
    /// A stage needs more than its device has, however the layers are shared out.
    #[error(
        "memory: stage {} (layers {}..{}) needs {}, {device} has {}: {} too much (weights {}, KV cache {}, \
         workspace {}, runtime {})",
        .stage + 1, .memory.layers.start, .memory.layers.end, Bytes(.memory.total()), Bytes(*.available),
        Bytes(.memory.total() - .available), Bytes(.memory.weights.total()), Bytes(.memory.cache),
        Bytes(.memory.workspace.total()), Bytes(.memory.runtime)
    )]
    DoesNotFit {
        /// The stage, from 0.
        stage: usize,
        /// Its device.
        device: String,
        /// Bytes the device has.
        available: u64,
        /// Memory that the stage needs.
        memory: Box<StageMemory>,
    },
}

/// Layers of all stages; counts come from a command line and may be of any size.
pub(super) fn sum(counts: &[usize]) -> usize {
    let add = |sum: usize, count: &usize| sum.saturating_add(*count);
    counts.iter().fold(0, add)
}
