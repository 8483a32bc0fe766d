//! Root-mean-square norm over the last dimension.
//!
//!   y = x / sqrt(mean(x^2) + eps) * gamma
//!
//! Computed in f32 and rounded once, to the type of `x`; `gamma` is kept in f32. On burn-flex this
//! is four passes (square, sum, scale, gamma) and one temporary besides the result.

use burn::{
    module::{Module, Param},
    tensor::{DType, Tensor},
};

/// The norm before attention, before the MLP and before the head.
#[derive(Module, Debug)]
pub(crate) struct RmsNorm {
    /// `[hidden]`, f32.
    pub(crate) gamma: Param<Tensor<1>>,
    pub(crate) eps: f64,
}

impl RmsNorm {
    /// `[rows, hidden]` to the same.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let dtype = x.dtype();
        let x = x.cast(DType::F32);
        let mean_square = (x.clone() * x.clone()).mean_dim(1);
        let scale = (mean_square + self.eps).sqrt().recip();
        (x * scale * self.gamma.val().unsqueeze()).cast(dtype)
    }
}
