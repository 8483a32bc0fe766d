//! A linear map with its weight as the checkpoint stores it.
//!
//!   y[r, o] = sum_i x[r, i] weight[o, i] + bias[o]
//!
//! The weight is read transposed in place: by cuBLASLt on CUDA, by Burn's product elsewhere. burn-flex
//! does so for f32 and f16; for bf16 that backend converts both operands to f32 at every call, so a
//! CPU wants f32 weights.

use burn::{
    module::{Module, Param},
    tensor::Tensor,
};
use sparse_accelerate_layers::linear;

use crate::error::ModelError;

/// Several of a checkpoint's projections may be stacked along `out` into one.
#[derive(Module, Debug)]
pub(crate) struct Projection {
    /// `[out, in]`.
    pub(crate) weight: Param<Tensor<2>>,
    /// `[out]`.
    pub(crate) bias: Option<Param<Tensor<1>>>,
}

impl Projection {
    /// `[rows, in]` to `[rows, out]`.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Result<Tensor<2>, ModelError> {
        let y = linear(x, &self.weight.val())?;
        Ok(match &self.bias {
            Some(bias) => y + bias.val().unsqueeze(),
            None => y,
        })
    }
}
