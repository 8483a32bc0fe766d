//! Errors of the attention crate: what failed, the value got, the limit, the way out.
//!
//! Everything a caller can get wrong is checked in the functions that return these, before any
//! launch: Burn's backend methods cannot return errors, and a launch reports nothing.

use sparse_accelerate_contract::Refusal;
use thiserror::Error;

/// Why an attention call, an index or a cache was refused.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum AttentionError {
    /// A setting is outside its range.
    #[error("{op}: {field} is {got}, but must be {limit}; {hint}")]
    Setting {
        /// The operation that refused.
        op: &'static str,
        /// The setting's name.
        field: &'static str,
        /// The value got.
        got: String,
        /// The allowed values.
        limit: String,
        /// The way out.
        hint: &'static str,
    },
    /// Two tensors, or a tensor and the spans, disagree.
    #[error("{op}: {what} is {got}, expected {expected}; {hint}")]
    Shape {
        /// The operation that refused.
        op: &'static str,
        /// Which dimension of which tensor.
        what: &'static str,
        /// The value got.
        got: String,
        /// The value that would fit.
        expected: String,
        /// The way out.
        hint: &'static str,
    },
    /// A sequence does not fit the cache.
    #[error(
        "kv cache: sequence {sequence} needs {needed} tokens, the cache holds {capacity}; \
         make the cache larger or the prompt shorter"
    )]
    CacheFull {
        /// Position in the batch.
        sequence: usize,
        /// Tokens it would hold after this chunk.
        needed: usize,
        /// Tokens it can hold.
        capacity: usize,
    },
    /// A call on a cache comes out of order.
    #[error(
        "kv cache, {op}: sequence {sequence} holds {held} tokens there, the plan expects {expected}; {hint}"
    )]
    CacheOrder {
        /// The call that was refused.
        op: &'static str,
        /// Position in the batch.
        sequence: usize,
        /// Tokens held.
        held: usize,
        /// Tokens that the plan expects to be held.
        expected: usize,
        /// The way out.
        hint: &'static str,
    },
    /// A chunk was planned over keys that a layer's window has let go of, or that it still holds.
    #[error(
        "kv cache, {op}: sequence {sequence} of layer {layer} holds its tokens from {held} on, the plan begins at {planned}; plan \
         the chunk with `KvCache::plan` and the layer's own window"
    )]
    CacheWindow {
        /// The call that was refused.
        op: &'static str,
        /// The layer.
        layer: usize,
        /// Position in the batch.
        sequence: usize,
        /// First token held.
        held: usize,
        /// First token of the plan.
        planned: usize,
    },
    /// A cache does not hold the layer.
    #[error(
        "kv cache: it holds {layers} layers from layer {first} on, not layer {layer}; allocate it for the \
         model's layers"
    )]
    NoLayer {
        /// The layer asked for.
        layer: usize,
        /// The first layer held.
        first: usize,
        /// Layers held.
        layers: usize,
    },
    /// An index breaks one of its invariants.
    #[error("index: row {row}: {reason}")]
    Index {
        /// Flat row (batch, head, query tile).
        row: usize,
        /// Which invariant, with the values.
        reason: String,
    },
    /// A selector beside another setting that says which keys are kept.
    #[error(
        "attention: the selector `{selector}` and the setting `{other}` both say which keys are kept; leave one \
         of them out"
    )]
    SelectorBeside {
        /// Name of the selector.
        selector: String,
        /// The other setting.
        other: &'static str,
    },
    /// The kernels of the device refuse the problem.
    #[error("{op}: {refusal}")]
    Refused {
        /// The operation that refused.
        op: &'static str,
        /// The limit that was hit.
        refusal: Refusal,
    },
    /// The device failed.
    #[error("{op}: {reason}")]
    Device {
        /// The operation that failed.
        op: &'static str,
        /// The device's own words.
        reason: String,
    },
}
