//! Errors between a model directory and its logits.
//!
//! Every variant says what was asked for and what the limit is. Errors of the crates below pass
//! through unchanged: their messages already name the file, the tensor or the shape.

use sparse_accelerate::AttentionError;
use sparse_accelerate_checkpoint::{CheckpointError, WeightDtype};
use sparse_accelerate_layers::FusedError;
use sparse_accelerate_layers::LinearError;

/// An error from loading or running a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The model directory could not be read, or its tensors do not fit its configuration.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Attention or its cache refused the chunk.
    #[error(transparent)]
    Attention(#[from] AttentionError),
    /// A norm or the MLP's gate refused its input.
    #[error(transparent)]
    Fused(#[from] FusedError),
    /// A projection refused its input.
    #[error(transparent)]
    Linear(#[from] LinearError),
    /// A weight holds NaN or an infinity.
    #[error(
        "weights: tensor {tensor} holds a NaN or an infinity; the file is damaged or was converted \
         to a type that cannot hold its values"
    )]
    NonFiniteWeight {
        /// Name of the tensor in the checkpoint.
        tensor: String,
    },
    /// The device failed to draw a random weight.
    #[error(
        "weights: the device cannot draw {tensor}: {reason}; most often memory: use a smaller model"
    )]
    Draw {
        /// Name of the tensor's first part.
        tensor: String,
        /// The backend's words.
        reason: String,
    },
    /// A token id is not in the vocabulary.
    #[error(
        "forward: token id {id} is outside the vocabulary of {vocab} tokens; was another model's \
         tokenizer used?"
    )]
    TokenOutOfRange {
        /// The id.
        id: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// A sequence is longer than the positions the model was made for.
    #[error("forward: {got} tokens are more than the {limit} positions this model has")]
    PromptTooLong {
        /// Length of the sequence.
        got: usize,
        /// Positions of the model.
        limit: usize,
    },
    /// No sequence was given, or one without a token.
    #[error("forward: every sequence of a chunk needs at least one token")]
    EmptyInput,
    /// The number of sequences differs between two arguments.
    #[error("forward: {ids} sequences of ids but {prompt_lens} prompt lengths")]
    BatchMismatch {
        /// Sequences of ids.
        ids: usize,
        /// Prompt lengths.
        prompt_lens: usize,
    },
    /// Rows of a chunk that are not there.
    #[error(
        "forward: rows {start}..{end} of chunks of {lens:?} tokens; give at least one row inside the \
         chunk of a single sequence"
    )]
    RowsOutOfRange {
        /// First row.
        start: usize,
        /// Row after the last.
        end: usize,
        /// Tokens of each sequence.
        lens: Vec<usize>,
    },
    /// Stages that hold nothing.
    #[error(
        "placement: stages of {counts:?} layers; give every stage at least one layer and the model at \
         least one stage"
    )]
    Placement {
        /// Hidden layers of each stage.
        counts: Vec<usize>,
    },
    /// Layers that the model does not have.
    #[error(
        "placement: layers {start}..{end} of a model of {layers} layers; a stage is a range of at least \
         one layer, its input layer stands before layer 0, its output layer after the last"
    )]
    StageOutOfRange {
        /// First layer.
        start: usize,
        /// Layer after the last.
        end: usize,
        /// Layers of the model.
        layers: usize,
    },
    /// A part of a model was asked for what another part does.
    #[error("{op}: layers {start}..{end} {lacks}; ask the stage that has it")]
    StageLacks {
        /// The request.
        op: &'static str,
        /// First layer of the stage.
        start: usize,
        /// Layer after its last.
        end: usize,
        /// The missing part.
        lacks: &'static str,
    },
    /// Hidden states of another chunk, model or type.
    #[error(
        "forward: hidden states of {got:?} in {dtype:?}, but these tokens need [{rows}, {hidden}] in {expected:?}"
    )]
    HiddenStates {
        /// Shape given.
        got: [usize; 2],
        /// Type given.
        dtype: burn::tensor::DType,
        /// Sequences times tokens of the longest.
        rows: usize,
        /// Width of the residual stream.
        hidden: usize,
        /// Type of the stage's weights.
        expected: burn::tensor::DType,
    },
    /// Who looks into a pass could not go on.
    #[error("forward: the observer failed: {reason}")]
    Observer {
        /// Its words.
        reason: String,
    },
    /// The device does not compute in the asked type.
    #[error(
        "load: {device} does not compute in {dtype:?}; it does in {supported:?} (set \
         `LoadOptions::dtype`)"
    )]
    UnsupportedDtype {
        /// The asked type.
        dtype: WeightDtype,
        /// The device.
        device: String,
        /// Types the device computes in.
        supported: Vec<WeightDtype>,
    },
    /// Activations of the model do not fit the asked type.
    #[error(
        "load: activations of a {class} grow past what f16 holds (65,504) and become infinite; load it as bf16 or f32 (set \
         `LoadOptions::dtype`)"
    )]
    Outgrown {
        /// The class of the model.
        class: &'static str,
    },
    /// A value of the configuration is outside what the decoder handles.
    #[error("config: {field} is {got}; {limit}")]
    UnsupportedConfig {
        /// Field of the configuration.
        field: &'static str,
        /// Its value.
        got: String,
        /// The value that it must have.
        limit: &'static str,
    },
}
