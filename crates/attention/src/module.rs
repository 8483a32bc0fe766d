//! Attention as a Burn module: settings in the configuration, a whole prompt in one call.
//!
//! For chunked prefill and decoding, keep a [`crate::KvCache`] and call [`crate::attend`].

use burn::{module::Module, tensor::Tensor};
use serde::{Deserialize, Serialize};

use crate::{
    attend::attend,
    error::AttentionError,
    plan::AttentionPlan,
    settings::{AttentionSettings, Decision},
    span::Span,
};

/// Configuration of [`SparseAttention`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SparseAttentionConfig {
    /// Mode, pattern and threshold.
    pub settings: AttentionSettings,
}

impl SparseAttentionConfig {
    /// The module; it has no parameters.
    pub fn init(&self) -> SparseAttention {
        SparseAttention {
            settings: self.settings.clone(),
        }
    }
}

/// Causal self-attention of whole prompts, between a model's projections.
#[derive(Module, Debug)]
pub struct SparseAttention {
    #[module(skip)]
    settings: AttentionSettings,
}

impl SparseAttention {
    /// Attends every prompt of a batch to itself.
    ///
    /// # Shapes
    /// `query` `[B, Hq, N, d]`, `key` and `value` `[B, Hk, N, d]`; result `[B, Hq, N, d]`.
    ///
    /// # Errors
    /// As [`attend`] and [`AttentionPlan::new`].
    pub fn forward(
        &self,
        query: Tensor<4>,
        key: &Tensor<4>,
        value: &Tensor<4>,
    ) -> Result<(Tensor<4>, Decision), AttentionError> {
        let [batch, _, rows, _] = query.dims();
        let spans = vec![Span::whole(rows); batch];
        let plan = AttentionPlan::new(&self.settings, &spans, &query.device())?;
        Ok((attend(query, key, value, &plan)?, *plan.decision()))
    }
}
