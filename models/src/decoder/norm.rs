//! Root-mean-square norm over the last dimension.
//!
//!   y = x / sqrt(mean(x^2) + eps) * gamma
//!
//! Computed in f32 and rounded once, to the type of `x`, in one pass; `gamma` is kept in f32.

use burn::{
    module::{Module, Param},
    tensor::Tensor,
};
use sparse_accelerate_layers::rms_norm;

use crate::error::ModelError;

/// The norm before attention, before the MLP and before the head.
#[derive(Module, Debug)]
pub(crate) struct RmsNorm {
    /// `[hidden]`, f32.
    pub(crate) gamma: Param<Tensor<1>>,
    pub(crate) eps: f64,
}

impl RmsNorm {
    /// `[rows, hidden]` to the same.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Result<Tensor<2>, ModelError> {
        Ok(rms_norm(x, &self.gamma.val(), self.eps)?)
    }
}
