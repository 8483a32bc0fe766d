//! Errors of a product, all checked before anything is launched.

use burn::tensor::DType;
use thiserror::Error;

/// Refusals of a product.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum LinearError {
    /// The input's rows do not have the length the weight reads.
    #[error(
        "linear: x is {x:?} and the weight {weight:?}, but x must be [rows, in] and the weight \
         [out, in] with the same in; a weight stored [in, out] goes in as `swap_dims(0, 1)`"
    )]
    Shape {
        /// Shape of the input.
        x: [usize; 2],
        /// Shape of the weight.
        weight: [usize; 2],
    },
    /// A dimension is zero.
    #[error("linear: x is {x:?} and the weight {weight:?}; every dimension must be at least 1")]
    Empty {
        /// Shape of the input.
        x: [usize; 2],
        /// Shape of the weight.
        weight: [usize; 2],
    },
    /// Input and weight differ in element type.
    #[error("linear: x is {x:?} and the weight {weight:?}; `cast` one of them")]
    DType {
        /// Element type of the input.
        x: DType,
        /// Element type of the weight.
        weight: DType,
    },
    /// Input and weight lie on different devices.
    #[error("linear: x is on {x} and the weight on {weight}; move one with `to_device`")]
    Device {
        /// Device of the input.
        x: String,
        /// Device of the weight.
        weight: String,
    },
}
