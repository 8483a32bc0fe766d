//! Keys of config.json that change what a model computes and that no code here honours.
//!
//! Each is accepted only at the value that switches it off. Dropping such a key without a word would give a model that runs and
//! answers wrongly.

use serde_json::Value;

use super::{Activation, Architecture, Fields, describe};
use crate::ConfigError;

/// Values at which a key does nothing.
enum Neutral {
    /// `false`, 0, empty or null.
    Off,
    /// The number one, or null.
    One,
}

const KEYS: &[(&str, Neutral, &str)] = &[
    (
        "quantization_config",
        Neutral::Off,
        "use an unquantised release of the model",
    ),
    (
        "rope_interleaved",
        Neutral::Off,
        "rotary pairs lie half a head apart",
    ),
    (
        "attn_logit_softcapping",
        Neutral::Off,
        "attention scores are not capped",
    ),
    (
        "final_logit_softcapping",
        Neutral::Off,
        "logits are not capped",
    ),
    (
        "query_pre_attn_scalar",
        Neutral::Off,
        "attention scores are scaled by 1/sqrt(head_dim)",
    ),
    (
        "use_qk_norm",
        Neutral::Off,
        "norms of queries and keys come with a family, not with this key",
    ),
    (
        "lm_head_bias",
        Neutral::Off,
        "the output projection has no bias",
    ),
    (
        "use_bidirectional_attention",
        Neutral::Off,
        "rows see keys up to their own",
    ),
    ("clip_qkv", Neutral::Off, "projections are not clipped"),
    ("alibi", Neutral::Off, "positions are rotary"),
    (
        "no_rope_layers",
        Neutral::Off,
        "every layer has rotary positions",
    ),
    ("num_local_experts", Neutral::Off, "only dense MLPs are"),
    ("num_experts", Neutral::Off, "only dense MLPs are"),
    (
        "embedding_multiplier",
        Neutral::One,
        "embeddings are not scaled",
    ),
    (
        "residual_multiplier",
        Neutral::One,
        "residuals are not scaled",
    ),
    ("logits_scaling", Neutral::One, "logits are not scaled"),
];

/// Refuses a config that asks for something unsupported.
pub(super) fn check(fields: Fields<'_>, family: Architecture) -> Result<(), ConfigError> {
    for (field, neutral, way_out) in KEYS {
        if let Some(value) = fields.get(field)
            && !family.honours(field)
            && !neutral.allows(value)
        {
            return Err(ConfigError::UnsupportedFeature {
                field,
                got: describe(value),
                way_out,
            });
        }
    }
    check_activation(fields, family)
}

/// Refuses an MLP with another gate than the family's. Gemma's files name it in `hidden_activation`, and some in both places.
fn check_activation(fields: Fields<'_>, family: Architecture) -> Result<(), ConfigError> {
    let (names, way_out): (&[&str], _) = match family.activation() {
        Activation::Silu => (&["silu", "swish"], "the MLP's activation is silu"),
        Activation::GeluTanh => (
            &["gelu_pytorch_tanh"],
            "the MLP's activation is gelu_pytorch_tanh",
        ),
    };
    for field in ["hidden_activation", "hidden_act"] {
        match fields.text(field)? {
            Some(other) if !names.contains(&other) => {
                return Err(ConfigError::UnsupportedFeature {
                    field,
                    got: describe(&other.into()),
                    way_out,
                });
            }
            // The first that is there counts.
            Some(_) => break,
            None => {}
        }
    }
    Ok(())
}

/// Every key, the value that does nothing, and what there is instead.
pub(crate) fn refused() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    KEYS.iter()
        .map(|(field, neutral, way_out)| (*field, neutral.words(), *way_out))
}

impl Neutral {
    fn words(&self) -> &'static str {
        match self {
            Self::Off => "false, 0, empty or null",
            Self::One => "1 or null",
        }
    }

    fn allows(&self, value: &Value) -> bool {
        match self {
            Self::Off => match value {
                Value::Bool(on) => !on,
                Value::Array(list) => list.is_empty(),
                Value::Object(fields) => fields.is_empty(),
                number => number.as_f64() == Some(0.0),
            },
            Self::One => value.as_f64() == Some(1.0),
        }
    }
}
