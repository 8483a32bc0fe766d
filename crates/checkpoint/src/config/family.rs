//! Families of models: their names in files, and what sets one apart from the others.
//!
//! A family begins here. What it shares with another family needs no line anywhere else: config.json is read by one parser,
//! and the weights of a layer are those of one table.

use super::Activation;

/// Model family: which blocks, which norms, where biases stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Architecture {
    /// Gemma 3, its text part: `Gemma3ForCausalLM`, norms on either side of attention and MLP, a window in most layers.
    Gemma3,
    /// Llama and its relatives (SmolLM2, Llama 2 and 3, TinyLlama): `LlamaForCausalLM`.
    Llama,
    /// Mistral (Nemo too) and Ministral: `MistralForCausalLM`, `MinistralForCausalLM`, Llama with a sliding window or none.
    Mistral,
    /// Phi-3, Phi-3.5 and Phi-4-mini: `Phi3ForCausalLM`, Q, K and V in one tensor, gate and up in another.
    Phi3,
    /// Qwen2 and Qwen2.5: `Qwen2ForCausalLM`, biases on Q, K and V.
    Qwen2,
    /// Dense Qwen3: `Qwen3ForCausalLM`, norms on the heads of Q and K.
    Qwen3,
    /// SmolLM3: `SmolLM3ForCausalLM`, Llama with layers that have no positions.
    SmolLm3,
}

/// How config.json says which layers have a window, where `layer_types` does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WindowRule {
    /// None has one.
    Never,
    /// Every layer, wherever `sliding_window` is a number, with no key beside it that switches it on.
    Size,
    /// With `use_sliding_window`, those from `max_window_layers` on.
    From,
    /// With `use_sliding_window`, those without positions.
    Unrotated,
    /// All but every `sliding_window_pattern`-th.
    Pattern,
}

impl Architecture {
    /// Every family.
    pub const ALL: [Self; 7] = [
        Self::Gemma3,
        Self::Llama,
        Self::Mistral,
        Self::Phi3,
        Self::Qwen2,
        Self::Qwen3,
        Self::SmolLm3,
    ];

    /// Class names in config.json, each with its `model_type`; the first is the one that is written.
    pub(crate) fn names(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Gemma3 => &[("Gemma3ForCausalLM", "gemma3_text")],
            Self::Llama => &[("LlamaForCausalLM", "llama")],
            Self::Mistral => &[
                ("MistralForCausalLM", "mistral"),
                ("MinistralForCausalLM", "ministral"),
            ],
            Self::Phi3 => &[("Phi3ForCausalLM", "phi3")],
            Self::Qwen2 => &[("Qwen2ForCausalLM", "qwen2")],
            Self::Qwen3 => &[("Qwen3ForCausalLM", "qwen3")],
            Self::SmolLm3 => &[("SmolLM3ForCausalLM", "smollm3")],
        }
    }

    /// The name in writing.
    fn title(self) -> &'static str {
        match self {
            Self::Gemma3 => "Gemma 3",
            Self::Llama => "Llama",
            Self::Mistral => "Mistral",
            Self::Phi3 => "Phi-3",
            Self::Qwen2 => "Qwen2",
            Self::Qwen3 => "Qwen3",
            Self::SmolLm3 => "SmolLM3",
        }
    }

    /// Releases that are of this family.
    pub(crate) fn releases(self) -> &'static str {
        match self {
            Self::Gemma3 => "Gemma 3 270M and 1B; the text part of larger ones, saved alone",
            Self::Llama => {
                "Llama 1 to 3.3, CodeLlama, TinyLlama, SmolLM, SmolLM2, Yi, DeepSeek LLM"
            }
            Self::Mistral => {
                "Mistral 7B, Mistral Nemo, Mathstral, Mistral Small (2024), Ministral 8B"
            }
            Self::Phi3 => "Phi-3 and Phi-3.5 mini, Phi-3 medium, Phi-4, Phi-4-mini",
            Self::Qwen2 => {
                "Qwen1.5, Qwen2, Qwen2.5 and its Coder and Math, QwQ, DeepSeek-R1-Distill-Qwen"
            }
            Self::Qwen3 => "Qwen3 0.6B to 32B, dense ones",
            Self::SmolLm3 => "SmolLM3 3B",
        }
    }

    /// The class name in config.json.
    #[must_use]
    pub fn class_name(self) -> &'static str {
        self.names()[0].0
    }

    /// The `model_type` in config.json.
    pub(crate) fn model_type(self) -> &'static str {
        self.names()[0].1
    }

    /// The architecture in GGUF, which is also the prefix of its metadata. Converters write a Mistral as a Llama.
    pub(crate) fn gguf_name(self) -> &'static str {
        match self {
            Self::Llama | Self::Mistral => "llama",
            Self::Gemma3 => "gemma3",
            Self::Phi3 | Self::Qwen2 | Self::Qwen3 | Self::SmolLm3 => self.model_type(),
        }
    }

    /// The family of a class name, in upper or lower case.
    pub(super) fn of_class(class: &str) -> Option<Self> {
        Self::find(|names| names.0.eq_ignore_ascii_case(class))
    }

    /// The family of a `model_type`.
    pub(super) fn of_model_type(name: &str) -> Option<Self> {
        Self::find(|names| names.1.eq_ignore_ascii_case(name))
    }

    fn find(is: impl Fn(&(&str, &str)) -> bool) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|family| family.names().iter().any(&is))
    }

    /// The names of every family, for messages.
    pub(crate) fn supported() -> String {
        let names = Self::ALL.into_iter().flat_map(Self::names);
        let names = names.map(|(class, model_type)| format!("{class} (model_type {model_type})"));
        names.collect::<Vec<_>>().join(", ")
    }

    /// Tells whether Q, K and V have biases where config.json does not say.
    pub(super) fn biased(self) -> bool {
        self == Self::Qwen2
    }

    /// Tells whether `attention_bias` speaks of the attention's output projection too, and `mlp_bias` of the MLP.
    pub(crate) fn biased_throughout(self) -> bool {
        self != Self::Qwen2
    }

    /// Tells whether the heads of Q and K are normalised before their rotation.
    pub(super) fn head_norms(self) -> bool {
        matches!(self, Self::Gemma3 | Self::Qwen3)
    }

    /// Tells whether Q, K and V are one tensor of a checkpoint, and gate and up another.
    pub(super) fn fused_projections(self) -> bool {
        self == Self::Phi3
    }

    /// Tells whether what attention and MLP add to the residual stream is normalised too. The norm before the MLP then has a name of its own.
    pub(crate) fn sandwich_norms(self) -> bool {
        self == Self::Gemma3
    }

    /// Tells whether a checkpoint holds the gains of norms less one.
    pub(crate) fn gains_less_one(self) -> bool {
        self == Self::Gemma3
    }

    /// Tells whether embeddings are multiplied by the square root of the width.
    pub(super) fn scales_embeddings(self) -> bool {
        self == Self::Gemma3
    }

    /// Tells whether activations grow past what f16 holds, 65,504.
    #[must_use]
    pub fn outgrows_f16(self) -> bool {
        self == Self::Gemma3
    }

    /// The MLP's gate.
    pub(crate) fn activation(self) -> Activation {
        match self {
            Self::Gemma3 => Activation::GeluTanh,
            _ => Activation::Silu,
        }
    }

    /// Tells whether the output projection is the embedding table where config.json does not say.
    pub(super) fn tied(self) -> bool {
        matches!(self, Self::Gemma3 | Self::SmolLm3)
    }

    /// How the layers with a window are told.
    pub(crate) fn window_rule(self) -> WindowRule {
        match self {
            Self::Gemma3 => WindowRule::Pattern,
            Self::Llama => WindowRule::Never,
            Self::Mistral | Self::Phi3 => WindowRule::Size,
            Self::Qwen2 | Self::Qwen3 => WindowRule::From,
            Self::SmolLm3 => WindowRule::Unrotated,
        }
    }

    /// Keys of the window where `sliding_window` is left out; `None` for no window.
    pub(crate) fn default_window(self) -> Option<usize> {
        match self {
            Self::Phi3 | Self::SmolLm3 => None,
            _ => Some(4096),
        }
    }

    /// Every so many layers one has no positions, where `no_rope_layers` does not say which; `None` where all have them.
    pub(crate) fn unrotated_interval(self) -> Option<usize> {
        (self == Self::SmolLm3).then_some(4)
    }

    /// Base of the rotary frequencies where config.json does not say.
    pub(super) fn default_theta(self) -> f64 {
        match self {
            Self::Gemma3 => 1e6,
            Self::SmolLm3 => 2e6,
            _ => 1e4,
        }
    }

    /// Base of the rotary frequencies of layers with a window where config.json does not say; `None` for that of the others.
    pub(super) fn default_local_theta(self) -> Option<f64> {
        (self == Self::Gemma3).then_some(1e4)
    }

    /// The number whose square root divides scores where `query_pre_attn_scalar` is left out; `None` in families without that key.
    pub(crate) fn query_scalar(self) -> Option<f64> {
        (self == Self::Gemma3).then_some(256.0)
    }

    /// Elements per head where config.json does not say; `None` for the hidden size over the heads.
    pub(crate) fn head_dim(self) -> Option<usize> {
        match self {
            Self::Gemma3 => Some(256),
            Self::Qwen3 => Some(128),
            _ => None,
        }
    }

    /// Keys of config.json that this family honours and the others do not know.
    pub(crate) fn honours(self, field: &str) -> bool {
        match self {
            Self::Gemma3 => field == "query_pre_attn_scalar",
            Self::SmolLm3 => field == "no_rope_layers",
            _ => false,
        }
    }
}

impl std::fmt::Display for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.title())
    }
}
