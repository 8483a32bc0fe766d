//! The interface between a sequence and the devices that compute it.
//!
//! A [`Runner`] holds the KV cache of one sequence and computes chunks in the order in which they are sent:
//! [`OneDevice`] in the caller's thread, [`crate::pipeline`] on the threads of its stages. It knows nothing of
//! prompts, progress or cancelling; [`crate::Sequence`] has the loop over chunks.

mod one_device;
mod score;

use std::{fmt, ops::Range, sync::Arc};

use burn::tensor::Tensor;
use sparse_accelerate::{AttentionSettings, Decision, SelectionRecord};
use sparse_accelerate_checkpoint::ModelConfig;
use sparse_accelerate_models::{LayerObserver, Placement};

use crate::{
    error::EngineError,
    memory::{Footprint, MeasuredMemory},
};

pub(crate) use one_device::{OneDevice, allocate, read, values};
pub use score::{Divergence, States};

/// Computes the chunks of one sequence and holds its KV cache.
pub(crate) trait Runner: fmt::Debug {
    /// The model's configuration.
    fn config(&self) -> &ModelConfig;

    /// The layers of every stage.
    fn placement(&self) -> Placement;

    /// The properties that the planned memory follows from.
    fn footprint(&self) -> Footprint;

    /// Refuses work that needs every layer in one place: scores, observers.
    fn check_whole(&self) -> Result<(), EngineError>;

    /// Number of chunks that may be sent before the first of them is received, at least 1.
    fn window(&self) -> usize;

    /// Allocates a cache of `capacity` tokens where there is none.
    fn open(&mut self, capacity: usize) -> Result<(), EngineError>;

    /// Begins a chunk, which comes after all that were sent before.
    fn send(&mut self, chunk: Chunk<'_>) -> Result<(), EngineError>;

    /// Waits for the oldest chunk that was sent and not received.
    fn receive(&mut self) -> Result<Answer, EngineError>;

    /// Makes the chunks that were sent and have not begun [`Answer::Skipped`].
    fn stop(&mut self);

    /// Forgets the tokens after the first `len`, and gives the number that are held then: `len`, or none where the cache cannot take back so
    /// many. Gives the cache up where it fails.
    fn rewind(&mut self, len: usize) -> Result<usize, EngineError>;

    /// Brings the cache back to its first `held` tokens after a run that failed. False where all tokens are lost: with a device that
    /// failed, or where layers with a window have let go of keys.
    fn recover(&mut self, error: &EngineError, held: usize) -> bool;

    /// Compares the next-token distributions of two runs of the same text, from their scored hidden states.
    fn diverge(&self, reference: &States, other: &States) -> Result<Divergence, EngineError>;

    /// Measures the peak of memory so far: on all stages together, and on each.
    fn measure(&mut self) -> Result<(MeasuredMemory, Vec<MeasuredMemory>), EngineError>;
}

/// New tokens of a sequence, computed in one pass.
pub(crate) struct Chunk<'a> {
    /// Name of the work in errors.
    pub(crate) op: &'static str,
    /// The tokens, at least one.
    pub(crate) ids: &'a [u32],
    /// Tokens of the sequence once its last chunk is computed.
    pub(crate) prompt: usize,
    /// Attention of the new rows.
    pub(crate) settings: &'a Arc<AttentionSettings>,
    /// Results to read back.
    pub(crate) wanted: Wanted<'a>,
    /// Sees every layer; only a model on one device can be observed.
    pub(crate) observer: Option<&'a mut dyn LayerObserver>,
}

/// Results of a chunk that are read back beside its decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted<'a> {
    /// None: the chunk fills the cache.
    Nothing,
    /// Logits after the last token.
    Logits,
    /// Logits after the last token and its hidden state.
    LogitsAndHidden,
    /// Negative log-likelihoods of tokens; only a model on one device gives them.
    Scores {
        /// Rows of the chunk that predict them.
        rows: Range<usize>,
        /// The tokens, one a row.
        targets: &'a [u32],
    },
}

/// Answer to a chunk.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The chunk is computed and in the cache.
    Computed(Box<Computed>),
    /// The chunk was passed over, because an earlier one failed or the run was stopped.
    Skipped,
    /// The chunk failed.
    Failed(EngineError),
}

/// Results of a chunk; what was not wanted is empty.
#[derive(Debug)]
pub(crate) struct Computed {
    /// `[hidden]`.
    pub(crate) last_hidden: Vec<f32>,
    /// `[vocab]`.
    pub(crate) logits: Vec<f32>,
    /// Negative log-likelihoods, nats.
    pub(crate) nll: Vec<f32>,
    /// Hidden states of the rows that they come from, `[rows, hidden]`, on the device.
    pub(crate) states: Option<Tensor<2>>,
    /// Decision of attention.
    pub(crate) decision: Decision,
    /// Choices of the heads, still on the device.
    pub(crate) selection: Vec<SelectionRecord>,
    /// Seconds each stage had it in work.
    pub(crate) busy_s: Vec<f64>,
}
