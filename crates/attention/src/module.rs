//! Attention as a Burn module: settings in the configuration, a whole prompt in one call.
//!
//! For chunked prefill and decoding, keep a [`crate::KvCache`] and call [`crate::KvCache::step`].

use burn::{module::Module, tensor::Tensor};
use serde::{Deserialize, Serialize};

use crate::{
    attend::attend,
    error::AttentionError,
    heads::Heads,
    plan::AttentionPlan,
    select::{SelectionRecord, attend_selected},
    settings::{AttentionSettings, Decision},
    span::Span,
    visible::Visible,
};

/// Configuration of [`SparseAttention`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct SparseAttentionConfig {
    /// Mode, pattern and threshold.
    pub settings: AttentionSettings,
    /// The number of the decoder layer, from 0: settings may keep the first layers dense, or have patterns
    /// by layer.
    pub layer: usize,
    /// The keys that the model lets a row see.
    pub visible: Visible,
    /// Base of the rotary frequencies, see [`Heads::rotary_base`].
    pub rotary_base: Option<f64>,
}

impl SparseAttentionConfig {
    /// The configuration of decoder layer `layer`, from 0, causal and without rotation.
    pub fn new(settings: AttentionSettings, layer: usize) -> Self {
        Self {
            settings,
            layer,
            ..Self::default()
        }
    }

    /// The same with another visibility.
    #[must_use]
    pub fn with_visible(mut self, visible: Visible) -> Self {
        self.visible = visible;
        self
    }

    /// The same for heads rotated in halves with frequencies of this base.
    #[must_use]
    pub fn with_rotary_base(mut self, base: f64) -> Self {
        self.rotary_base = Some(base);
        self
    }

    /// The module; it has no parameters.
    pub fn init(&self) -> SparseAttention {
        SparseAttention {
            config: self.clone(),
        }
    }
}

/// Causal self-attention of whole prompts, between a model's projections.
#[derive(Module, Debug)]
pub struct SparseAttention {
    #[module(skip)]
    config: SparseAttentionConfig,
}

/// The result of [`SparseAttention::forward`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Attended {
    /// `[B, Hq, N, d]`.
    pub output: Tensor<4>,
    /// The decision for this layer, and its reason.
    pub decision: Decision,
    /// The choices of the heads; `None` where they choose nothing.
    pub record: Option<SelectionRecord>,
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
    ) -> Result<Attended, AttentionError> {
        let ([batch, heads, rows, dim], config) = (query.dims(), &self.config);
        let heads = Heads {
            rotary_base: config.rotary_base,
            ..Heads::new(heads, key.dims()[1], dim)
        };
        let spans = vec![Span::whole(rows); batch];
        let device = query.device();
        let plan = AttentionPlan::new(&config.settings, &spans, heads, config.visible, &device)?;
        let layer = plan.layer(config.layer)?;
        let (output, record) = match plan.selects() {
            true => {
                let selected = attend_selected(query, key, value, None, &layer)?;
                (selected.output, Some(selected.record))
            }
            false => (attend(query, key, value, &layer)?, None),
        };
        Ok(Attended {
            output,
            decision: layer.decision(),
            record,
        })
    }
}
