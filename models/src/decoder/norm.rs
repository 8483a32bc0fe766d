//! Root-mean-square norm over the last dimension, of rows or of the heads in them.
//!
//!   y = x / sqrt(mean(x^2) + eps) * gamma
//!
//! Computed in f32 and rounded once, to the type of `x`, in one pass; `gamma` is kept in f32.

use burn::{
    module::{Module, Param},
    tensor::Tensor,
};
use sparse_accelerate::Heads;
use sparse_accelerate_layers::rms_norm;

use crate::error::ModelError;

/// The norm before attention, before the MLP and before the head; after attention and MLP; of query heads or of key heads.
#[derive(Module, Debug)]
pub(crate) struct RmsNorm {
    /// `[width]`, f32.
    pub(crate) gamma: Param<Tensor<1>>,
    pub(crate) eps: f64,
}

impl RmsNorm {
    /// The norm with its gain times a factor.
    pub(crate) fn times(self, factor: f64) -> Self {
        match factor == 1.0 {
            true => self,
            false => Self {
                gamma: self.gamma.map(|gamma| gamma * factor),
                ..self
            },
        }
    }

    /// `[rows, width]` to the same.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Result<Tensor<2>, ModelError> {
        Ok(rms_norm(x, &self.gamma.val(), self.eps)?)
    }
}

/// `x` through a norm, where there is one.
pub(super) fn normed(norm: &Option<RmsNorm>, x: Tensor<2>) -> Result<Tensor<2>, ModelError> {
    match norm {
        Some(norm) => norm.forward(x),
        None => Ok(x),
    }
}

/// Norms of every query head and every key head, before their rotation.
#[derive(Module, Debug)]
pub(crate) struct HeadNorms {
    /// `[head_dim]`.
    pub(crate) query: RmsNorm,
    /// `[head_dim]`.
    pub(crate) key: RmsNorm,
}

impl HeadNorms {
    /// `qkv` `[rows, (query + 2 * kv) * head_dim]` to the same; values stay as they are.
    pub(crate) fn forward(&self, qkv: Tensor<2>, heads: Heads) -> Result<Tensor<2>, ModelError> {
        let [rows, width] = qkv.dims();
        let (query, key) = (heads.query * heads.dim, heads.kv * heads.dim);
        let normed = |norm: &RmsNorm, from: usize, to: usize| {
            let part = qkv.clone().slice_dim(1, from..to);
            let by_head = part.reshape([rows * (to - from) / heads.dim, heads.dim]);
            Ok::<_, ModelError>(norm.forward(by_head)?.reshape([rows, to - from]))
        };
        let parts = vec![
            normed(&self.query, 0, query)?,
            normed(&self.key, query, query + key)?,
            qkv.clone().slice_dim(1, query + key..width),
        ];
        Ok(Tensor::cat(parts, 1))
    }
}
