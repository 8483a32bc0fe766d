//! Errors of the fused operations, all checked before anything is launched.

use burn::tensor::DType;
use thiserror::Error;

/// Refusals of an operation.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum FusedError {
    /// A dimension is outside its range.
    #[error("{op}: {what} is {got}, but must be {limit}")]
    Shape {
        /// The operation that refused.
        op: &'static str,
        /// Name of the tensor and its dimension.
        what: &'static str,
        /// The value got.
        got: usize,
        /// The values that would fit.
        limit: String,
    },
    /// The norm's epsilon is no small number.
    #[error("rms_norm: eps is {got}, but must be finite and at least 0; take the checkpoint's")]
    Epsilon {
        /// The value got.
        got: f64,
    },
    /// An element type that is not computed in.
    #[error("{op}: {what} is {got:?}, but must be {limit}; `cast` it")]
    DType {
        /// The operation that refused.
        op: &'static str,
        /// Name of the tensor.
        what: &'static str,
        /// Element type of the tensor.
        got: DType,
        /// The types that would do.
        limit: &'static str,
    },
    /// The operands lie on different devices.
    #[error("rms_norm: x is on {x} and gamma on {gamma}; move one with `to_device`")]
    Device {
        /// Device of the input.
        x: String,
        /// Device of the gain.
        gamma: String,
    },
    /// The device refuses the element type.
    #[error("{op}: {reason}")]
    Refused {
        /// The operation that refused.
        op: &'static str,
        /// Reason with value, limit and way out.
        reason: String,
    },
}
