//! Every way a run can be refused or fail, in one type.
//!
//! [`EngineError::is_usage`] tells refusals that another request avoids from failures of a run.

use sparse_accelerate::AttentionError;
use sparse_accelerate_checkpoint::CheckpointError;
use sparse_accelerate_models::ModelError;
use thiserror::Error;

use crate::{
    calibration::CalibrationError,
    device::DeviceError,
    memory::{Bytes, MemoryPlan},
    placement::SplitError,
    sampling::SamplingError,
    stop::StopError,
};

/// Error of a run that was refused or failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A look into layers of which some have let go of keys.
    #[error(
        "{tokens} tokens: layers of this model keep a window of {window} keys alone, and what such a layer hides cannot be looked at; \
         give a text of at most {window} tokens, or another model"
    )]
    HiddenKeys {
        /// Tokens of the prompt.
        tokens: usize,
        /// The smallest window of a layer.
        window: usize,
    },
    /// The device cannot be opened.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A calibration cannot be read or kept.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// A sampling setting, or the logits, cannot be used.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// A stop string cannot be used.
    #[error(transparent)]
    Stop(#[from] StopError),
    /// Attention settings or the cache cannot be used.
    #[error(transparent)]
    Attention(#[from] AttentionError),
    /// The model directory or its tokenizer cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Loading or running the model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The prompt has no tokens.
    #[error("prompt: 0 tokens; a prompt needs at least 1")]
    EmptyPrompt,
    /// The prompt and the answer do not fit the model or the cache.
    #[error(
        "prompt: {prompt} tokens + {max_tokens} new ones = {}, but {what} is {limit}. \
         Nothing was cut off; {hint}", .prompt.saturating_add(*.max_tokens)
    )]
    TooLong {
        /// Prompt tokens.
        prompt: usize,
        /// New tokens asked for.
        max_tokens: usize,
        /// Name of the limit.
        what: &'static str,
        /// The limit, tokens.
        limit: usize,
        /// Way out.
        hint: &'static str,
    },
    /// More tokens to score than have a token before them.
    #[error(
        "score: {scored} of {tokens} tokens, but a token is scored by the one before it; score 1 to \
         {}", .tokens.saturating_sub(1)
    )]
    Scored {
        /// Tokens to score.
        scored: usize,
        /// Tokens in all.
        tokens: usize,
    },
    /// A chunk of no tokens.
    #[error("prefill: chunk is 0 tokens, but must be at least 1")]
    EmptyChunk,
    /// The run needs more memory than the device has.
    #[error(
        "memory: needs {plan}, but {device} has {}. Use a shorter prompt, fewer new tokens, \
         smaller chunks or weights in f16", Bytes(*.available)
    )]
    Memory {
        /// The planned memory.
        plan: Box<MemoryPlan>,
        /// Bytes the device has.
        available: u64,
        /// The device's name.
        device: String,
    },
    /// The caller asked to end.
    #[error("cancelled after {done} of {total} prompt tokens")]
    Cancelled {
        /// Prompt tokens computed.
        done: usize,
        /// Prompt tokens to compute.
        total: usize,
    },
    /// The device gave up in a place that has no errors, most often for lack of memory.
    #[error(
        "{op}: the device gave up ({reason}); most often memory: use a shorter prompt, smaller \
         chunks or a smaller type of the weights"
    )]
    GaveUp {
        /// Name of the work.
        op: &'static str,
        /// Message of the backend.
        reason: String,
    },
    /// A model cannot be cut as asked, or does not fit its devices.
    #[error(transparent)]
    Split(#[from] SplitError),
    /// Stages that do not fit the model or the devices.
    #[error(
        "placement: stages of {counts:?} layers on {devices} devices, but the model has {layers} layers; give \
         every device a stage, and every layer"
    )]
    Placement {
        /// Layers of each stage.
        counts: Vec<usize>,
        /// Number of devices.
        devices: usize,
        /// Layers of the model.
        layers: usize,
    },
    /// The work needs the model on one device, but it is in stages.
    #[error("this needs the model on one device, but it is cut into {stages} stages")]
    Staged {
        /// The stages.
        stages: usize,
    },
    /// A stage of a pipeline failed; the others go on.
    #[error("stage {stage} ({device}): {source}")]
    Stage {
        /// The stage, from 0.
        stage: usize,
        /// Its device.
        device: String,
        /// Error of the stage.
        source: Box<EngineError>,
    },
    /// A stage of a pipeline is gone, and the pipeline with it.
    #[error(
        "pipeline: stage {stage} ({device}) ended: {reason}; its memory is given back with the pipeline, \
         load the model again"
    )]
    StageLost {
        /// The stage, from 0.
        stage: usize,
        /// Its device.
        device: String,
        /// Reason, as far as it is known.
        reason: String,
    },
    /// A pipeline in which nothing moves.
    #[error(
        "pipeline: nothing has moved for {waited_s:.0} s (limit {limit_s:.0} s); {what}. If the work is only slow, raise \
         the limit; if it hangs in a transfer between devices, move hidden states through the host"
    )]
    Stalled {
        /// Seconds since something moved.
        waited_s: f64,
        /// The limit, seconds.
        limit_s: f64,
        /// Work of each stage.
        what: String,
    },
    /// The device failed while running; on a GPU this may be an earlier kernel's failure.
    #[error("{op}: the device failed: {reason}")]
    Execution {
        /// Name of the work.
        op: &'static str,
        /// Message of the backend.
        reason: String,
    },
}

impl EngineError {
    /// True where another request would help: a wrong name, setting or prompt length.
    pub fn is_usage(&self) -> bool {
        match self {
            EngineError::Device(error) => !matches!(error, DeviceError::CannotOpen { .. }),
            EngineError::Sampling(error) => matches!(error, SamplingError::Setting { .. }),
            EngineError::Attention(error) | EngineError::Model(ModelError::Attention(error)) => {
                matches!(error, AttentionError::Setting { .. })
            }
            EngineError::Model(error) => {
                matches!(
                    error,
                    ModelError::UnsupportedDtype { .. }
                        | ModelError::Outgrown { .. }
                        | ModelError::PromptTooLong { .. }
                )
            }
            EngineError::Stop(_)
            | EngineError::EmptyPrompt
            | EngineError::EmptyChunk
            | EngineError::Placement { .. }
            | EngineError::Split(_)
            | EngineError::Staged { .. }
            | EngineError::HiddenKeys { .. }
            | EngineError::Scored { .. }
            | EngineError::TooLong { .. } => true,
            EngineError::Stage { source, .. } => source.is_usage(),
            EngineError::Checkpoint(_)
            | EngineError::Calibration(_)
            | EngineError::Memory { .. }
            | EngineError::Cancelled { .. }
            | EngineError::GaveUp { .. }
            | EngineError::StageLost { .. }
            | EngineError::Stalled { .. }
            | EngineError::Execution { .. } => false,
        }
    }

    /// True where the device failed, so that its caches cannot be trusted.
    pub(crate) fn is_fatal(&self) -> bool {
        match self {
            EngineError::Stage { source, .. } => source.is_fatal(),
            EngineError::GaveUp { .. }
            | EngineError::StageLost { .. }
            | EngineError::Stalled { .. }
            | EngineError::Execution { .. } => true,
            _ => false,
        }
    }

    pub(crate) fn execution(op: &'static str, reason: impl ToString) -> Self {
        EngineError::Execution {
            op,
            reason: reason.to_string(),
        }
    }
}
