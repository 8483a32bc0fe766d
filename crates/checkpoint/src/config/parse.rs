//! config.json to [`ModelConfig`]: fields, defaults and the rules between fields.
//!
//! Defaults are those of the model classes that write these files: `num_key_value_heads` = heads, `head_dim` = hidden size /
//! heads (Qwen3: 128, Gemma 3: 256), `rope_theta` = 10000 (Gemma 3: a million, SmolLM3: two), `rms_norm_eps` = 1e-6, untied embeddings (Gemma 3
//! and SmolLM3: tied), no biases except Qwen2's on Q, K and V.
//! The first Llama files spell the class `LLaMAForCausalLM` and the length `max_sequence_length`. Caps on sizes are far above any model
//! and keep every product of sizes inside 64 bits.

use serde_json::Value;

use super::{
    Architecture, Fields, ModelConfig, RopeScaling, WeightDtype, describe, layers, rope::Rope,
    unsupported,
};
use crate::{ConfigError, json};

pub(super) const FILE: &str = "config.json";
const MAX_HIDDEN: usize = 1 << 17;
const MAX_INTERMEDIATE: usize = 1 << 20;
pub(crate) const MAX_LAYERS: usize = 1 << 10;
const MAX_HEADS: usize = 1 << 10;
const MAX_VOCAB: usize = 1 << 24;
pub(super) const MAX_POSITIONS: usize = 1 << 28;
const HEAD_DIMS: std::ops::RangeInclusive<usize> = 32..=256;
const HEAD_DIM_STEP: usize = 8;
const DEFAULT_NORM_EPS: f64 = 1e-6;
const POSITIONS: &str = "max_position_embeddings";
/// The spelling of [`POSITIONS`] in the first Llama files.
const OLD_POSITIONS: &str = "max_sequence_length";

/// Parses and checks the text of a config.json.
pub(super) fn parse(text: &str) -> Result<ModelConfig, ConfigError> {
    let value = json::parse(text).map_err(|error| ConfigError::Syntax {
        file: FILE,
        reason: error.to_string(),
    })?;
    let fields = Fields::new(FILE, &value)?;
    let architecture = architecture(fields)?;
    unsupported::check(fields, architecture)?;

    let layers = required(fields, "num_hidden_layers", MAX_LAYERS)?;
    let mut attention = layers::parse(fields, architecture, layers)?;
    let hidden_size = required(fields, "hidden_size", MAX_HIDDEN)?;
    let heads = required(fields, "num_attention_heads", MAX_HEADS)?;
    let kv_heads = optional(fields, "num_key_value_heads", MAX_HEADS)?.unwrap_or(heads);
    if heads % kv_heads != 0 {
        return Err(conflict(
            ("num_attention_heads", heads),
            ("num_key_value_heads", kv_heads),
            "query heads share key heads evenly",
        ));
    }
    let vocab_size = required(fields, "vocab_size", MAX_VOCAB)?;
    let head_dim = head_dim(fields, architecture, hidden_size, heads)?;
    let Rope {
        theta: rope_theta,
        rotary_dim,
        scaling: rope_scaling,
        local_theta: local_rope_theta,
    } = Rope::parse(fields, architecture, head_dim, &mut attention)?;
    let attention_bias = fields.flag("attention_bias")?;
    let throughout = architecture.biased_throughout();
    let eos = fields.ids("eos_token_id")?;
    let bos = fields.id("bos_token_id")?;
    check_ids("eos_token_id", &eos, vocab_size)?;
    check_ids("bos_token_id", bos.as_slice(), vocab_size)?;

    Ok(ModelConfig {
        architecture,
        hidden_size,
        intermediate_size: required(fields, "intermediate_size", MAX_INTERMEDIATE)?,
        layers,
        heads,
        kv_heads,
        head_dim,
        vocab_size,
        max_positions: max_positions(fields, rope_scaling.as_ref())?,
        rope_theta,
        rotary_dim,
        rope_scaling,
        local_rope_theta,
        attention,
        query_scalar: query_scalar(fields, architecture, head_dim)?,
        embedding_scale: match architecture.scales_embeddings() {
            true => (hidden_size as f64).sqrt(),
            false => 1.0,
        },
        activation: architecture.activation(),
        norm_eps: norm_eps(fields)?,
        tied_embeddings: fields
            .flag("tie_word_embeddings")?
            .unwrap_or(architecture.tied()),
        fused_projections: architecture.fused_projections(),
        qkv_bias: attention_bias.unwrap_or(architecture.biased()),
        output_bias: throughout && attention_bias.unwrap_or(false),
        mlp_bias: throughout && fields.flag("mlp_bias")?.unwrap_or(false),
        head_norms: architecture.head_norms(),
        sandwich_norms: architecture.sandwich_norms(),
        gains_less_one: architecture.gains_less_one(),
        dtype: dtype(fields)?,
        bos,
        eos,
    })
}

/// The length in tokens as the file has it.
pub(super) fn written_positions(fields: Fields<'_>) -> Result<usize, ConfigError> {
    match (
        optional(fields, POSITIONS, MAX_POSITIONS)?,
        optional(fields, OLD_POSITIONS, MAX_POSITIONS)?,
    ) {
        (Some(written), _) | (None, Some(written)) => Ok(written),
        (None, None) => required(fields, POSITIONS, MAX_POSITIONS),
    }
}

/// A model whose positions are stretched often keeps the length of before in its file: YaRN has it among its own fields, dynamic
/// NTK grows from it, and beside linear interpolation the stretched length may stand in the old spelling.
fn max_positions(fields: Fields<'_>, scaling: Option<&RopeScaling>) -> Result<usize, ConfigError> {
    let written = written_positions(fields)?;
    let stretched = |factor: f64, original: usize| written.max((factor * original as f64) as usize);
    Ok(match scaling {
        Some(RopeScaling::Linear { .. }) => {
            let old = optional(fields, OLD_POSITIONS, MAX_POSITIONS)?;
            written.max(old.unwrap_or(written))
        }
        Some(RopeScaling::Yarn(yarn)) => stretched(yarn.factor, yarn.original_max_positions),
        Some(RopeScaling::LongRope(long)) => stretched(long.factor, long.original_max_positions),
        Some(RopeScaling::Dynamic(ntk)) => stretched(ntk.factor, ntk.original_max_positions),
        _ => written,
    })
}

fn architecture(fields: Fields<'_>) -> Result<Architecture, ConfigError> {
    let unknown = |field, got: &str| ConfigError::UnsupportedArchitecture {
        field,
        got: got.to_owned(),
    };
    let class = match fields.get("architectures") {
        None => None,
        Some(Value::Array(list)) if list.len() == 1 && list[0].is_string() => list[0].as_str(),
        Some(other) => {
            return Err(fields.wrong("architectures", other, "a list of one class name"));
        }
    };
    let by_class = class
        .map(|class| Architecture::of_class(class).ok_or_else(|| unknown("architectures", class)));
    let model_type = fields.text("model_type")?;
    let by_type = model_type
        .map(|name| Architecture::of_model_type(name).ok_or_else(|| unknown("model_type", name)));
    match (by_class.transpose()?, by_type.transpose()?) {
        (Some(a), Some(b)) if a != b => Err(ConfigError::Conflict {
            file: FILE,
            field: "architectures",
            got: a.class_name().to_owned(),
            other: "model_type",
            other_got: b.model_type().to_owned(),
            rule: "both name one family",
        }),
        (Some(found), _) | (None, Some(found)) => Ok(found),
        (None, None) => Err(ConfigError::Missing {
            file: FILE,
            field: "architectures",
            expected: "a list of one class name, such as [\"LlamaForCausalLM\"]",
        }),
    }
}

pub(super) fn optional(
    fields: Fields<'_>,
    field: &'static str,
    max: usize,
) -> Result<Option<usize>, ConfigError> {
    let Some(got) = fields.size(field)? else {
        return Ok(None);
    };
    match usize::try_from(got) {
        Ok(size) if (1..=max).contains(&size) => Ok(Some(size)),
        _ => Err(value(field, got, format!("a size in 1..={max}"))),
    }
}

fn required(fields: Fields<'_>, field: &'static str, max: usize) -> Result<usize, ConfigError> {
    optional(fields, field, max)?.ok_or(ConfigError::Missing {
        file: FILE,
        field,
        expected: "a size above zero",
    })
}

fn head_dim(
    fields: Fields<'_>,
    architecture: Architecture,
    hidden_size: usize,
    heads: usize,
) -> Result<usize, ConfigError> {
    let head_dim = match (fields.size("head_dim")?, architecture.head_dim()) {
        (Some(got), _) => usize::try_from(got).unwrap_or(usize::MAX),
        (None, Some(own)) => own,
        (None, None) if hidden_size.is_multiple_of(heads) => hidden_size / heads,
        (None, None) => {
            return Err(conflict(
                ("hidden_size", hidden_size),
                ("num_attention_heads", heads),
                "without `head_dim` the heads divide the hidden size evenly",
            ));
        }
    };
    if HEAD_DIMS.contains(&head_dim) && head_dim % HEAD_DIM_STEP == 0 {
        Ok(head_dim)
    } else {
        Err(ConfigError::HeadDim { got: head_dim })
    }
}

/// Gemma's files have the number whose square root divides scores.
fn query_scalar(
    fields: Fields<'_>,
    architecture: Architecture,
    head_dim: usize,
) -> Result<f64, ConfigError> {
    let field = "query_pre_attn_scalar";
    let scalar = match architecture.query_scalar() {
        Some(own) => fields.number(field)?.unwrap_or(own),
        None => head_dim as f64,
    };
    match (1.0..=MAX_HIDDEN as f64).contains(&scalar) {
        true => Ok(scalar),
        false => Err(value(
            field,
            scalar,
            format!("a number in 1..={MAX_HIDDEN}"),
        )),
    }
}

fn norm_eps(fields: Fields<'_>) -> Result<f64, ConfigError> {
    let field = "rms_norm_eps";
    let eps = fields.number(field)?.unwrap_or(DEFAULT_NORM_EPS);
    if eps > 0.0 && eps < 1.0 {
        Ok(eps)
    } else {
        Err(value(field, eps, "a number above 0 and below 1".to_owned()))
    }
}

fn dtype(fields: Fields<'_>) -> Result<WeightDtype, ConfigError> {
    let field = if fields.get("dtype").is_some() {
        "dtype"
    } else {
        "torch_dtype"
    };
    match fields.text(field)? {
        None | Some("float32") => Ok(WeightDtype::F32),
        Some("float16") => Ok(WeightDtype::F16),
        Some("bfloat16") => Ok(WeightDtype::Bf16),
        Some(other) => Err(value(
            field,
            describe(&other.into()),
            "float32, float16 or bfloat16".to_owned(),
        )),
    }
}

fn check_ids(field: &'static str, ids: &[u32], vocab_size: usize) -> Result<(), ConfigError> {
    match ids.iter().find(|&&id| id as usize >= vocab_size) {
        Some(&id) => Err(value(
            field,
            id,
            format!("token ids below vocab_size {vocab_size}"),
        )),
        None => Ok(()),
    }
}

fn value(field: &'static str, got: impl ToString, expected: String) -> ConfigError {
    ConfigError::Value {
        file: FILE,
        field,
        got: got.to_string(),
        expected,
    }
}

fn conflict(a: (&'static str, usize), b: (&'static str, usize), rule: &'static str) -> ConfigError {
    ConfigError::Conflict {
        file: FILE,
        field: a.0,
        got: a.1.to_string(),
        other: b.0,
        other_got: b.1.to_string(),
        rule,
    }
}
