//! The gated MLP, in row chunks.
//!
//!   y = down(act(gate(n)) * up(n)),  n = norm(x), act SiLU or GELU; y normalised where a model does so
//!
//! Gate and up are one product: their weights are stacked `[gate; up]` at load. Rows are taken
//! `rows` at a time, norm included, so that the widest temporary is `[rows, 2 * intermediate]`
//! however long the chunk is; rows are independent, so the result does not depend on `rows`.

use burn::{module::Module, tensor::Tensor};
use sparse_accelerate_checkpoint::Activation;
use sparse_accelerate_layers::{geglu, swiglu};

use super::{Projection, RmsNorm, norm::normed};
use crate::error::ModelError;

/// Norm, gate, up and down of one layer.
#[derive(Module, Debug)]
pub(crate) struct Mlp {
    pub(crate) norm: RmsNorm,
    /// `[2 * intermediate, hidden]`.
    pub(crate) gate_up: Projection,
    /// `[hidden, intermediate]`.
    pub(crate) down: Projection,
    /// Of what is added to the residual stream.
    pub(crate) post_norm: Option<RmsNorm>,
    #[module(skip)]
    pub(crate) activation: Activation,
    /// Rows per chunk, at least 1.
    pub(crate) rows: usize,
}

impl Mlp {
    /// Computes the block's addition to the residual stream: `[rows, hidden]` to the same.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Result<Tensor<2>, ModelError> {
        let total = x.dims()[0];
        if total <= self.rows {
            return self.chunk(x);
        }
        let parts: Result<_, _> = (0..total)
            .step_by(self.rows)
            .map(|start| {
                let end = (start + self.rows).min(total);
                self.chunk(x.clone().slice_dim(0, start..end))
            })
            .collect();
        Ok(Tensor::cat(parts?, 0))
    }

    fn chunk(&self, x: Tensor<2>) -> Result<Tensor<2>, ModelError> {
        let gate_up = self.gate_up.forward(self.norm.forward(x)?)?;
        let gated = match self.activation {
            Activation::Silu => swiglu(gate_up)?,
            Activation::GeluTanh => geglu(gate_up)?,
        };
        normed(&self.post_norm, self.down.forward(gated)?)
    }
}
