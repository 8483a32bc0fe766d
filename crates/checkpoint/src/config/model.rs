//! The model configuration as the rest of the program sees it.
//!
//! Every value has been checked: sizes are non-zero and small enough that products of two, and `layers` times those, fit in
//! 64 bits; `attention` has `layers` entries; `heads` is a multiple of `kv_heads`; `head_dim` is a multiple of 8 in 32..=256.

use super::{Architecture, WeightDtype};

/// Rotary positions stretched beyond the length a model was first trained for.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// Linear interpolation (arXiv 2306.15595): positions are divided by the factor.
    Linear {
        /// Divisor of positions, at least 1.
        factor: f64,
    },
    /// As published with Llama 3.1.
    Llama3(Llama3Scaling),
    /// YaRN (arXiv 2309.00071).
    Yarn(YarnScaling),
    /// LongRoPE (arXiv 2402.13753), as published with Phi-3.
    LongRope(LongRopeScaling),
    /// Dynamic NTK: a base that grows with the sequence.
    Dynamic(DynamicScaling),
}

impl RopeScaling {
    /// Tells whether frequencies depend on how long a sequence is to become. One sequence has one set of them, in all its chunks and
    /// in its decoding: keys that were rotated two ways cannot be compared.
    #[must_use]
    pub fn follows_length(&self) -> bool {
        matches!(self, Self::LongRope(_) | Self::Dynamic(_))
    }
}

/// Rotary frequencies divided pair by pair, by one list for sequences of up to the original length and by another for longer ones.
/// Cosines and sines are multiplied by an attention factor, by default `sqrt(1 + ln(factor) / ln(original))`.
#[derive(Clone, Debug, PartialEq)]
pub struct LongRopeScaling {
    /// Divisors for sequences of up to the original length, one a pair; above zero.
    pub short_factors: Vec<f64>,
    /// Divisors for longer sequences.
    pub long_factors: Vec<f64>,
    /// Longest length over the original one, at least 1.
    pub factor: f64,
    /// Context length in tokens before the stretch, at least 2.
    pub original_max_positions: usize,
    /// Factor of queries and keys in sequences of up to the original length.
    pub short_attention_factor: f64,
    /// Factor of queries and keys in longer sequences.
    pub long_attention_factor: f64,
}

/// Rotary frequencies whose base grows with a sequence of more than the original length: for `r` rotated elements a head and `n`
/// tokens it is `theta (factor n / original - factor + 1)^(r / (r - 2))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DynamicScaling {
    /// Speed of the growth, above 1.
    pub factor: f64,
    /// Context length in tokens up to which nothing changes.
    pub original_max_positions: usize,
}

/// Rotary frequencies stretched the YaRN way: pairs that turn fewer than `beta_slow` times over the original
/// length are divided by `factor`, those that turn more than `beta_fast` times are kept, between them a ramp over
/// pairs. Cosines and sines are multiplied by `attention_factor`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct YarnScaling {
    /// Divisor of the low frequencies, at least 1.
    pub factor: f64,
    /// Context length in tokens before the stretch.
    pub original_max_positions: usize,
    /// Factor of queries and keys; `0.1 ln(factor) + 1` where the file gives none.
    pub attention_factor: f64,
    /// Turns from which a pair is kept.
    pub beta_fast: f64,
    /// Turns below which a pair is stretched in full.
    pub beta_slow: f64,
    /// The ramp begins and ends at whole pairs.
    pub truncate: bool,
}

/// Rotary frequencies stretched the Llama 3.1 way: low frequencies divided by `factor`, high ones kept, between them a ramp.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Llama3Scaling {
    /// Divisor of the low frequencies, at least 1.
    pub factor: f64,
    /// Wavelengths longer than `original_max_positions / low_freq_factor` are stretched in full.
    pub low_freq_factor: f64,
    /// Wavelengths shorter than `original_max_positions / high_freq_factor` are kept; above `low_freq_factor`.
    pub high_freq_factor: f64,
    /// Context length in tokens before the stretch.
    pub original_max_positions: usize,
}

/// Attention of one decoder layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerAttention {
    /// Keys that a row sees, its own included; `None` where it sees all up to its own.
    pub window: Option<usize>,
    /// Rotation of its queries and keys.
    pub rotation: LayerRotation,
}

impl LayerAttention {
    /// A layer that sees every key, with the model's rotation.
    pub const FULL: Self = Self {
        window: None,
        rotation: LayerRotation::Main,
    };

    /// A layer with the model's rotation that sees so many keys.
    #[must_use]
    pub const fn within(window: Option<usize>) -> Self {
        Self {
            window,
            ..Self::FULL
        }
    }
}

/// Rotation of a layer's queries and keys by their positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LayerRotation {
    /// By frequencies of base [`ModelConfig::rope_theta`], scaled.
    Main,
    /// By frequencies of base [`ModelConfig::local_rope_theta`], not scaled.
    Local,
    /// None: the layer has no positions.
    None,
}

/// Gate of an MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + exp(-x))`.
    Silu,
    /// `x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`.
    GeluTanh,
}

impl Activation {
    /// The name that config.json is written with.
    pub(crate) fn config_name(self) -> &'static str {
        match self {
            Self::Silu => "silu",
            Self::GeluTanh => "gelu_pytorch_tanh",
        }
    }
}

/// Configuration of a decoder-only model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Model family.
    pub architecture: Architecture,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the gated MLP.
    pub intermediate_size: usize,
    /// Decoder blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Longest sequence the model was made for, in tokens; under YaRN, LongRoPE and dynamic NTK at least the factor times
    /// the original length.
    pub max_positions: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Elements at the front of a head of Q and K that are rotated, even; the others stay as they are.
    pub rotary_dim: usize,
    /// Scaling of the rotary frequencies, if any.
    pub rope_scaling: Option<RopeScaling>,
    /// Base of the rotary frequencies of layers with [`LayerRotation::Local`].
    pub local_rope_theta: f64,
    /// Attention of every layer, `layers` of them.
    pub attention: Vec<LayerAttention>,
    /// Number whose square root divides scores before their softmax; in most models `head_dim`.
    pub query_scalar: f64,
    /// Factor of embeddings, 1 in most models.
    pub embedding_scale: f64,
    /// Gate of the MLP.
    pub activation: Activation,
    /// Epsilon of the RMS norms.
    pub norm_eps: f64,
    /// True if the output projection is the embedding table.
    pub tied_embeddings: bool,
    /// True if Q, K and V are one tensor of a checkpoint, and gate and up another.
    pub fused_projections: bool,
    /// True if Q, K and V have biases.
    pub qkv_bias: bool,
    /// True if the attention's output projection has a bias.
    pub output_bias: bool,
    /// True if the three MLP projections have biases.
    pub mlp_bias: bool,
    /// True if every head of Q and K is normalised before its rotation.
    pub head_norms: bool,
    /// True if what attention and MLP add to the residual stream is normalised before it is added.
    pub sandwich_norms: bool,
    /// True if a checkpoint holds the gains of norms less one.
    pub gains_less_one: bool,
    /// Element type the weights were released in.
    pub dtype: WeightDtype,
    /// Beginning-of-sequence token.
    pub bos: Option<u32>,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
}

impl ModelConfig {
    /// Windows that layers have, each once, in the order of the layers.
    #[must_use]
    pub fn windows(&self) -> Vec<usize> {
        let mut windows = Vec::new();
        for window in self.attention.iter().filter_map(|layer| layer.window) {
            if !windows.contains(&window) {
                windows.push(window);
            }
        }
        windows
    }

    /// The window that every layer has; `None` where one sees all keys up to a row's own, or where they differ.
    #[must_use]
    pub fn common_window(&self) -> Option<usize> {
        let first = self.attention.first()?.window;
        first.filter(|_| self.attention.iter().all(|layer| layer.window == first))
    }
}
