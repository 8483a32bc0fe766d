//! Table of a decoder layer's tensors: names in Hugging Face and GGUF files, sizes, biases.
//!
//! The table is the only list of these tensors. The checks of a checkpoint, the GGUF importer, the loader of models and the
//! plan of memory follow from it, so a family with another tensor adds it here.

use super::{Architecture, ModelConfig};

/// Prefix of a layer's tensors; the layer's number follows after a dot.
pub const LAYERS: &str = "model.layers";
/// Name of the embedding table, `[vocab_size, hidden_size]`.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// Name of the last norm's gain, `[hidden_size]`.
pub const FINAL_NORM: &str = "model.norm.weight";
/// Name of the output projection, `[vocab_size, hidden_size]`; absent where it is the embedding table.
pub const HEAD: &str = "lm_head.weight";

/// Role of a weight in a decoder layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayerPart {
    /// Query, key and value projection in one, their rows in this order.
    QueryKeyValue,
    /// Query projection.
    Query,
    /// Key projection.
    Key,
    /// Value projection.
    Value,
    /// Output projection of the attention.
    Output,
    /// Gate and up projection of the MLP in one, the gate's rows first.
    GateUp,
    /// Gate projection of the MLP.
    Gate,
    /// Up projection of the MLP.
    Up,
    /// Down projection of the MLP.
    Down,
    /// Norm before the attention.
    AttentionNorm,
    /// Norm of what the attention adds.
    PostAttentionNorm,
    /// Norm before the MLP.
    MlpNorm,
    /// Norm of what the MLP adds.
    PostMlpNorm,
    /// Norm of a query head, before its rotation.
    QueryNorm,
    /// Norm of a key head, before its rotation.
    KeyNorm,
}

impl LayerPart {
    /// Every part, in the order of [`ModelConfig::expected_tensors`].
    pub const ALL: [Self; 15] = [
        Self::QueryKeyValue,
        Self::Query,
        Self::Key,
        Self::Value,
        Self::Output,
        Self::GateUp,
        Self::Gate,
        Self::Up,
        Self::Down,
        Self::AttentionNorm,
        Self::PostAttentionNorm,
        Self::MlpNorm,
        Self::PostMlpNorm,
        Self::QueryNorm,
        Self::KeyNorm,
    ];

    /// Name in Hugging Face checkpoints of a family, between the layer's number and `.weight` or `.bias`.
    #[must_use]
    pub fn name(self, family: Architecture) -> &'static str {
        match self {
            Self::MlpNorm if family.sandwich_norms() => "pre_feedforward_layernorm",
            _ => self.names().0,
        }
    }

    /// Name in GGUF files, between the block's number and `.weight` or `.bias`.
    pub(crate) fn gguf_name(self) -> &'static str {
        self.names().1
    }

    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::QueryKeyValue => ("self_attn.qkv_proj", "attn_qkv"),
            Self::Query => ("self_attn.q_proj", "attn_q"),
            Self::Key => ("self_attn.k_proj", "attn_k"),
            Self::Value => ("self_attn.v_proj", "attn_v"),
            Self::Output => ("self_attn.o_proj", "attn_output"),
            Self::GateUp => ("mlp.gate_up_proj", "ffn_up"),
            Self::Gate => ("mlp.gate_proj", "ffn_gate"),
            Self::Up => ("mlp.up_proj", "ffn_up"),
            Self::Down => ("mlp.down_proj", "ffn_down"),
            Self::AttentionNorm => ("input_layernorm", "attn_norm"),
            // In a family with both, the norm before the MLP has another name.
            Self::PostAttentionNorm => ("post_attention_layernorm", "post_attention_norm"),
            Self::MlpNorm => ("post_attention_layernorm", "ffn_norm"),
            Self::PostMlpNorm => ("post_feedforward_layernorm", "post_ffw_norm"),
            Self::QueryNorm => ("self_attn.q_norm", "attn_q_norm"),
            Self::KeyNorm => ("self_attn.k_norm", "attn_k_norm"),
        }
    }
}

/// One weight of a decoder layer with its sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerWeight {
    /// Role of the weight.
    pub part: LayerPart,
    /// Name between the layer's number and `.weight` or `.bias`.
    pub name: &'static str,
    /// Number of rows: outputs of a projection, elements of a norm's gain.
    pub rows: usize,
    /// Number of inputs of a projection; `None` for a norm.
    pub columns: Option<usize>,
    /// True if a bias `[rows]` belongs to the weight.
    pub bias: bool,
}

impl LayerWeight {
    /// Full name of the weight in layer `layer`, without `.weight` or `.bias`.
    #[must_use]
    pub fn name(&self, layer: usize) -> String {
        format!("{LAYERS}.{layer}.{}", self.name)
    }

    /// Number of tensors in a checkpoint: the weight, and its bias if it has one.
    #[must_use]
    pub fn tensors(&self) -> usize {
        1 + usize::from(self.bias)
    }

    /// Shape of the weight, `[rows, columns]` or `[rows]`.
    #[must_use]
    pub fn shape(&self) -> Vec<usize> {
        [Some(self.rows), self.columns]
            .into_iter()
            .flatten()
            .collect()
    }
}

impl ModelConfig {
    /// Returns a weight of a decoder layer, whether the model has it or not; all layers are alike.
    #[must_use]
    pub fn layer_weight(&self, part: LayerPart) -> LayerWeight {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let (query, key) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let (rows, columns, bias) = match part {
            LayerPart::QueryKeyValue => (query + 2 * key, Some(hidden), self.qkv_bias),
            LayerPart::Query => (query, Some(hidden), self.qkv_bias),
            LayerPart::Key | LayerPart::Value => (key, Some(hidden), self.qkv_bias),
            LayerPart::Output => (hidden, Some(query), self.output_bias),
            LayerPart::GateUp => (2 * inner, Some(hidden), self.mlp_bias),
            LayerPart::Gate | LayerPart::Up => (inner, Some(hidden), self.mlp_bias),
            LayerPart::Down => (hidden, Some(inner), self.mlp_bias),
            LayerPart::AttentionNorm
            | LayerPart::PostAttentionNorm
            | LayerPart::MlpNorm
            | LayerPart::PostMlpNorm => (hidden, None, false),
            LayerPart::QueryNorm | LayerPart::KeyNorm => (self.head_dim, None, false),
        };
        LayerWeight {
            part,
            name: part.name(self.architecture),
            rows,
            columns,
            bias,
        }
    }

    /// Returns all weights of a decoder layer, in the order of [`ModelConfig::expected_tensors`].
    pub fn layer_weights(&self) -> impl Iterator<Item = LayerWeight> + '_ {
        let has = |part: &LayerPart| match part {
            LayerPart::QueryNorm | LayerPart::KeyNorm => self.head_norms,
            LayerPart::PostAttentionNorm | LayerPart::PostMlpNorm => self.sandwich_norms,
            LayerPart::QueryKeyValue | LayerPart::GateUp => self.fused_projections,
            LayerPart::Query
            | LayerPart::Key
            | LayerPart::Value
            | LayerPart::Gate
            | LayerPart::Up => !self.fused_projections,
            _ => true,
        };
        let parts = LayerPart::ALL.into_iter().filter(has);
        parts.map(|part| self.layer_weight(part))
    }
}
