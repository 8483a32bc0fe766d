//! Errors of the attention crate: what failed, the value got, the limit, the way out.
//!
//! Everything a caller can get wrong is checked in the functions that return these, before any
//! launch: Burn's backend methods cannot return errors, and a launch reports nothing.

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
        /// What to do instead.
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
        /// What to do instead.
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
    /// An index breaks one of its invariants.
    #[error("index: row {row}: {reason}")]
    Index {
        /// Flat row (batch, head, query tile).
        row: usize,
        /// Which invariant, with the values.
        reason: String,
    },
    /// The device refuses the problem.
    #[error("{op}: {reason}")]
    Device {
        /// The operation that refused.
        op: &'static str,
        /// Reason with value, limit and way out.
        reason: String,
    },
}
