//! Options of a pipeline.

use std::time::Duration;

use burn::tensor::Device;
use serde::Serialize;
use sparse_accelerate_checkpoint::ModelConfig;
use sparse_accelerate_models::{ModelOptions, Placement};

use crate::error::EngineError;

/// Route of hidden states from one device to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// From device to device: the backend's own way where it has one (NCCL between CUDA devices), else
    /// through the host, as the backend does it.
    Peer,
    /// Read to the host, written to the next device: works between any two.
    Host,
}

impl Transport {
    /// The transport in one word: `peer` or `host`.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Peer => "peer",
            Transport::Host => "host",
        }
    }
}

/// Options of a pipeline: its stages, their devices, and their work together.
#[derive(Debug, Clone)]
pub struct PipelineOptions {
    /// A device for every stage. The same device may stand several times.
    pub devices: Vec<Device>,
    /// The layers of every stage.
    pub placement: Placement,
    /// Options of the model, the same on every stage.
    pub model: ModelOptions,
    /// Route of hidden states between stages.
    pub transport: Transport,
    /// Chunks of equal time to cut a prompt into; `None` goes by its length.
    pub chunks: Option<usize>,
    /// Time without any sign of life after which a run ends with [`EngineError::Stalled`].
    pub stall: Duration,
}

impl PipelineOptions {
    /// Default of [`PipelineOptions::stall`]: five minutes. The first chunk compiles kernels.
    pub const STALL: Duration = Duration::from_secs(300);

    /// Default options of the model, transport from device to device.
    pub fn new(devices: Vec<Device>, placement: Placement) -> Self {
        Self {
            devices,
            placement,
            model: ModelOptions::default(),
            transport: Transport::Peer,
            chunks: None,
            stall: Self::STALL,
        }
    }

    /// Refuses a placement of other layers or stages than there are.
    pub(super) fn check(&self, config: &ModelConfig) -> Result<(), EngineError> {
        let counts = self.placement.counts();
        let layers: usize = counts.iter().sum();
        if counts.len() != self.devices.len() || layers != config.layers {
            return Err(EngineError::Placement {
                counts,
                devices: self.devices.len(),
                layers: config.layers,
            });
        }
        Ok(())
    }
}
