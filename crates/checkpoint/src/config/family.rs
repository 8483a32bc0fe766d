//! Families of models: their names in files, and what sets one apart from the others.
//!
//! A family begins here. What it shares with another family needs no line anywhere else: config.json is read by one parser,
//! and the weights of a layer are those of one table.

/// Model family: which blocks, which norms, where biases stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Architecture {
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
}

impl Architecture {
    /// Every family.
    pub const ALL: [Self; 5] = [
        Self::Llama,
        Self::Mistral,
        Self::Phi3,
        Self::Qwen2,
        Self::Qwen3,
    ];

    /// Class names in config.json, each with its `model_type`; the first is the one that is written.
    fn names(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Llama => &[("LlamaForCausalLM", "llama")],
            Self::Mistral => &[
                ("MistralForCausalLM", "mistral"),
                ("MinistralForCausalLM", "ministral"),
            ],
            Self::Phi3 => &[("Phi3ForCausalLM", "phi3")],
            Self::Qwen2 => &[("Qwen2ForCausalLM", "qwen2")],
            Self::Qwen3 => &[("Qwen3ForCausalLM", "qwen3")],
        }
    }

    /// The class name in config.json.
    pub(crate) fn class_name(self) -> &'static str {
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
            Self::Phi3 | Self::Qwen2 | Self::Qwen3 => self.model_type(),
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
        self == Self::Qwen3
    }

    /// Tells whether Q, K and V are one tensor of a checkpoint, and gate and up another.
    pub(super) fn fused_projections(self) -> bool {
        self == Self::Phi3
    }

    /// Tells whether every layer has a window wherever `sliding_window` is a number, with no key beside it that switches it on.
    pub(super) fn window_by_size(self) -> bool {
        matches!(self, Self::Mistral | Self::Phi3)
    }

    /// Keys of the window where `sliding_window` is left out; `None` for no window.
    pub(super) fn default_window(self) -> Option<usize> {
        match self {
            Self::Phi3 => None,
            _ => Some(4096),
        }
    }

    /// Elements per head where config.json does not say; `None` for the hidden size over the heads.
    pub(super) fn head_dim(self) -> Option<usize> {
        (self == Self::Qwen3).then_some(128)
    }
}
