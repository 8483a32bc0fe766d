//! How a pipeline is put on its devices.

use std::time::Duration;

use burn::tensor::Device;
use serde::Serialize;
use sparse_accelerate::KvType;
use sparse_accelerate_checkpoint::{ModelConfig, WeightDtype};
use sparse_accelerate_models::Placement;

use crate::error::EngineError;

/// How hidden states get from one device to the next.
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
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Peer => "peer",
            Transport::Host => "host",
        }
    }
}

/// Stages, their devices, and how they work together.
#[derive(Debug, Clone)]
pub struct PipelineOptions {
    /// A device for every stage. The same device may stand several times.
    pub devices: Vec<Device>,
    /// The layers of every stage.
    pub placement: Placement,
    /// Type of the weights; `None` keeps the checkpoint's.
    pub dtype: Option<WeightDtype>,
    /// How the KV cache keeps keys and values.
    pub kv: KvType,
    /// Refuse weights that hold a NaN or an infinity.
    pub check_finite: bool,
    /// Rows the MLPs take at a time.
    pub mlp_rows: usize,
    /// How hidden states travel.
    pub transport: Transport,
    /// Chunks of equal time to cut a prompt into; `None` goes by its length.
    pub chunks: Option<usize>,
    /// Time without any sign of life after which a run ends with [`EngineError::Stalled`].
    pub stall: Duration,
}

impl PipelineOptions {
    /// What a pipeline waits for a sign of life: five minutes. The first chunk compiles kernels.
    pub const STALL: Duration = Duration::from_secs(300);

    /// The checkpoint's type, weights checked, 2,048 MLP rows, transport from device to device.
    pub fn new(devices: Vec<Device>, placement: Placement) -> Self {
        Self {
            devices,
            placement,
            dtype: None,
            kv: KvType::Model,
            check_finite: true,
            mlp_rows: 2048,
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
