//! What is asked of a plan.

use serde::Serialize;
use sparse_accelerate::KvType;
use sparse_accelerate_checkpoint::ModelConfig;
use thiserror::Error;

use crate::{
    cards::{Card, Source},
    error::EngineError,
    estimate::{Density, Rates},
    memory::Workload,
    placement::{LayerCosts, Split, SplitError, StageDevice},
};

/// A device as a plan sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlanDevice {
    /// Name on the command line.
    pub name: String,
    /// What it is, for people.
    pub title: String,
    /// Bytes a program can have; `None` where nothing tells.
    pub memory: Option<u64>,
    /// Where the memory comes from.
    pub memory_source: Source,
    /// What it does in a second.
    pub rates: Rates,
    /// Where the rate of products comes from.
    pub linear_source: Source,
    /// Where the rates of attention come from.
    pub attention_source: Source,
}

impl PlanDevice {
    /// A card of the table.
    pub fn card(card: &Card) -> Self {
        Self {
            name: card.name.into(),
            title: card.name.into(),
            memory: Some(card.usable()),
            memory_source: Source::Stated("the card's memory less 512 MiB for the driver"),
            rates: Rates {
                linear: card.linear(),
                dense: card.attention(),
                sparse: card.attention(),
            },
            linear_source: card.shares.source,
            attention_source: card.shares.source,
        }
    }
}

/// What is to run, and on what.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanRequest {
    /// The model.
    pub config: ModelConfig,
    /// Bytes of an element of weights and activations.
    pub element: usize,
    /// Type of the cache.
    pub kv: KvType,
    /// Tokens of prompt and answer together.
    pub context: usize,
    /// How many of them are the answer.
    pub max_tokens: usize,
    /// Tokens of the largest chunk.
    pub chunk: usize,
    /// Tokens the MLP handles at a time.
    pub mlp_rows: usize,
    /// How layers are shared out.
    pub split: Split,
    /// One a stage, in the order of the layers.
    pub devices: Vec<PlanDevice>,
    /// Share of attention's pairs of a sparse prefill.
    pub density: Density,
    /// Whether the devices are GPUs.
    pub gpu: bool,
}

impl PlanRequest {
    /// Tokens of the prompt.
    pub fn prompt(&self) -> usize {
        self.context.saturating_sub(self.max_tokens)
    }

    /// The workload whose memory is planned: heads may choose their keys.
    pub fn workload(&self) -> Workload {
        Workload {
            element: self.element,
            kv: self.kv,
            capacity: self.context,
            chunk: self.chunk,
            mlp_rows: self.mlp_rows,
            selects: true,
            gpu: self.gpu,
        }
    }

    /// The devices, with what layers cost on them in a dense prefill.
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

/// Why there is no plan.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A prompt without tokens, or longer than the model's positions.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The layers cannot be shared out so, or do not fit.
    #[error(transparent)]
    Split(#[from] SplitError),
}

impl PlanError {
    /// Whether it is memory that is missing.
    pub fn is_memory(&self) -> bool {
        matches!(self, PlanError::Split(SplitError::DoesNotFit { .. }))
    }
}
