//! The request of a plan.

use serde::Serialize;
use sparse_accelerate_checkpoint::ModelConfig;
use thiserror::Error;

use crate::{
    error::EngineError,
    estimate::{Density, Rates},
    gpus::{GpuModel, Source},
    memory::{Choosing, Footprint, Workload},
    placement::{LayerCosts, Split, SplitError, StageDevice},
};

/// A device as a plan sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlanDevice {
    /// Short name: a GPU model's, or a device's of this machine.
    pub name: String,
    /// Name for people.
    pub title: String,
    /// Bytes a program can have; `None` where nothing tells.
    pub memory: Option<u64>,
    /// Source of the memory.
    pub memory_source: Source,
    /// Rates of its work.
    pub rates: Rates,
    /// Source of the rate of products.
    pub linear_source: Source,
    /// Source of the rates of attention.
    pub attention_source: Source,
}

impl PlanDevice {
    /// The device of a known GPU model.
    pub fn of_model(gpu: &GpuModel) -> Self {
        Self {
            name: gpu.name.into(),
            title: gpu.name.into(),
            memory: Some(gpu.usable()),
            memory_source: Source::Stated("the card's memory less 512 MiB for the driver"),
            rates: Rates {
                linear: gpu.linear(),
                dense: gpu.attention(),
                sparse: gpu.attention(),
            },
            linear_source: gpu.shares.source,
            attention_source: gpu.shares.source,
        }
    }
}

/// A model, a length and the devices to plan for.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanRequest {
    /// The model.
    pub config: ModelConfig,
    /// The model as it is loaded: element, cache, rows of the MLP, GPU or not.
    pub footprint: Footprint,
    /// Tokens of prompt and answer together.
    pub context: usize,
    /// Tokens of the answer among them.
    pub max_tokens: usize,
    /// Tokens of the largest chunk.
    pub chunk: usize,
    /// Rule by which layers are shared out.
    pub split: Split,
    /// Devices of the stages, in the order of the layers.
    pub devices: Vec<PlanDevice>,
    /// Share of attention's pairs of a sparse prefill.
    pub density: Density,
}

impl PlanRequest {
    /// Tokens of the prompt.
    pub fn prompt(&self) -> usize {
        self.context.saturating_sub(self.max_tokens)
    }

    /// The workload whose memory is planned; its heads may choose their keys.
    pub fn workload(&self) -> Workload {
        Workload {
            choosing: Choosing::HeadBlocks,
            ..self.footprint.workload(self.context, self.chunk, &[])
        }
    }

    /// The devices, with the costs of layers on them in a dense prefill.
    pub(super) fn stage_devices(&self) -> Vec<StageDevice> {
        let of = |device: &PlanDevice| {
            let (costs, speed) = LayerCosts::at(&self.config, self.prompt(), 1.0, &device.rates);
            StageDevice {
                name: device.name.clone(),
                memory: device.memory,
                speed,
                costs,
            }
        };
        self.devices.iter().map(of).collect()
    }
}

/// Error of a request that has no plan.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A prompt without tokens, or longer than the model's positions.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The layers cannot be shared out as asked, or do not fit.
    #[error(transparent)]
    Split(#[from] SplitError),
}

impl PlanError {
    /// True where memory is missing.
    pub fn is_memory(&self) -> bool {
        matches!(self, PlanError::Split(SplitError::DoesNotFit { .. }))
    }
}
