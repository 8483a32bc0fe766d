//! A linear map with its weight as the checkpoint stores it.
//!
//!   y[r, o] = sum_i x[r, i] weight[o, i] + bias[o]
//!
//! `swap_dims` on the weight changes strides only. On burn-flex the product reads the transposed
//! operand in place for f32 and f16; for bf16 that backend converts both operands to f32 at every
//! call, so a CPU wants f32 weights.

use burn::{
    module::{Module, Param},
    tensor::Tensor,
};

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
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let y = x.matmul(self.weight.val().swap_dims(0, 1));
        match &self.bias {
            Some(bias) => y + bias.val().unsqueeze(),
            None => y,
        }
    }
}
