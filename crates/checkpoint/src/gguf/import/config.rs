//! config.json and generation_config.json from GGUF metadata.
//!
//! The JSON is built first and then read back by [`ModelConfig::from_json`], so an import is held to the rules of a load. The
//! norm epsilon is stored as f32 (9.9999997e-06); six significant digits give back what the model was made with.

use serde_json::{Value, json};

use super::{gemma, longrope, names, rope};
use crate::config::MAX_LAYERS;
use crate::gguf::GgufFile;
use crate::gguf::metadata::{Metadata, required};
use crate::{Architecture, GgufError, LayerPart, WeightDtype};

/// Projections whose biases go together in config.json.
const ATTENTION: [LayerPart; 4] = [
    LayerPart::Query,
    LayerPart::Key,
    LayerPart::Value,
    LayerPart::Output,
];
/// The same in the MLP.
const MLP: [LayerPart; 3] = [LayerPart::Gate, LayerPart::Up, LayerPart::Down];

/// Size of the window that layers have.
pub(super) const WINDOW: &str = "attention.sliding_window";
/// The layers that have it.
pub(super) const PATTERN: &str = "attention.sliding_window_pattern";

/// Numbers that change what a model computes, and the value of each that does nothing; 0 is none.
const VARIANTS: &[(&str, f64, &str)] = &[
    (
        "attention.scale",
        0.0,
        "0: scores are divided by the root of the head size",
    ),
    ("attention.clamp_kqv", 0.0, "0: projections are not clipped"),
    ("attention.max_alibi_bias", 0.0, "0: positions are rotary"),
    ("attn_logit_softcapping", 0.0, "0: scores are not capped"),
    ("final_logit_softcapping", 0.0, "0: logits are not capped"),
    ("logit_scale", 1.0, "1: logits are not scaled"),
    (
        "embedding_scale",
        1.0,
        "1: no other scale of embeddings than the family's",
    ),
    ("residual_scale", 1.0, "1: residuals are not scaled"),
];

/// The way out for a Phi-3: its models have windows of their own where the key is missing.
const NO_WINDOW_KEY: &str = "the number of keys that every layer sees, 0 for all: convert the model again with a current converter, or use \
     its Hugging Face directory";

/// Tokenizer metadata that config.json repeats.
pub(super) struct TokenMetadata {
    pub(super) vocab_size: usize,
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) padding: Option<u32>,
}

/// The architecture, if it is one of those supported. A `llama` file with a window is a Mistral.
pub(crate) fn architecture(metadata: &Metadata) -> Result<Architecture, GgufError> {
    let key = "general.architecture";
    let name = required(key, metadata.text(key))?;
    refuse_parts(metadata)?;
    match name {
        "gemma3" => Ok(Architecture::Gemma3),
        "llama" => Ok(match window(metadata, &|name| format!("llama.{name}"))? {
            Some(_) => Architecture::Mistral,
            None => Architecture::Llama,
        }),
        "phi3" => Ok(Architecture::Phi3),
        "qwen2" => Ok(Architecture::Qwen2),
        "qwen3" => Ok(Architecture::Qwen3),
        "smollm3" => Ok(Architecture::SmolLm3),
        other => Err(unsupported(
            key,
            other,
            "gemma3, llama, phi3, qwen2, qwen3 and smollm3",
        )),
    }
}

/// Tells whether files of an architecture are imported.
pub(crate) fn takes(name: &str) -> bool {
    architecture(&Metadata::of("general.architecture", name)).is_ok()
}

/// The text of config.json.
pub(super) fn config_json(
    file: &GgufFile,
    architecture: Architecture,
    tokens: &TokenMetadata,
    dtype: WeightDtype,
    tied: bool,
) -> Result<Value, GgufError> {
    let metadata = &file.metadata;
    let prefix = architecture.gguf_name();
    let key = |name: &str| format!("{prefix}.{name}");
    let size = |name: &str| required(&key(name), metadata.size(&key(name)));

    refuse_variants(file, &key)?;
    let biased = |parts: &[LayerPart]| parts.iter().any(|&part| names::has_bias(file, part));
    let hidden = size("embedding_length")?;
    let layers = checked_layers(&key, size("block_count")?)?;
    let heads = size("attention.head_count")?;
    let kv_heads = metadata
        .size(&key("attention.head_count_kv"))?
        .unwrap_or(heads);
    let head_dim = match metadata.size(&key("attention.key_length"))? {
        Some(length) => length,
        None if heads > 0 && hidden % heads == 0 => hidden / heads,
        None => {
            return Err(unsupported(
                &key("attention.head_count"),
                &heads.to_string(),
                "a divisor of the width",
            ));
        }
    };
    let whole = |name: &str, got: u64| match got == head_dim {
        true => Ok(()),
        false => Err(unsupported(
            &key(name),
            &got.to_string(),
            "the size of a whole head",
        )),
    };
    if let Some(got) = metadata.size(&key("attention.value_length"))? {
        whole("attention.value_length", got)?;
    }
    let rotated = metadata.size(&key(longrope::ROTATED))?.unwrap_or(head_dim);
    match architecture {
        Architecture::Phi3 => longrope::check_rotated(&key, rotated, head_dim)?,
        _ => whole(longrope::ROTATED, rotated)?,
    }
    let eps = key("attention.layer_norm_rms_epsilon");
    let eps = six_digits(required(&eps, metadata.float(&eps))?);

    let theta = metadata.float(&key("rope.freq_base"))?;
    let theta = theta.unwrap_or(10_000.0);
    let context = size("context_length")?;
    let scaling = match architecture {
        Architecture::Phi3 => longrope::scaling(file, &key, theta, rotated, context)?,
        _ => rope::scaling(file, &key, theta, head_dim)?,
    };

    let mut config = json!({
        "architectures": [architecture.class_name()],
        "model_type": architecture.model_type(),
        "attention_dropout": 0.0,
        "bos_token_id": tokens.bos,
        "eos_token_id": tokens.eos,
        "pad_token_id": tokens.padding,
        "hidden_size": hidden,
        "head_dim": head_dim,
        "initializer_range": 0.02,
        "intermediate_size": size("feed_forward_length")?,
        "max_position_embeddings": context,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": kv_heads,
        "rms_norm_eps": eps,
        "rope_scaling": scaling,
        "rope_theta": theta,
        "tie_word_embeddings": tied,
        "vocab_size": tokens.vocab_size,
        "use_cache": true,
        "torch_dtype": dtype.config_name(),
    });
    let gate = match architecture {
        Architecture::Gemma3 => "hidden_activation",
        _ => "hidden_act",
    };
    config[gate] = architecture.activation().config_name().into();
    if architecture.biased_throughout() {
        // These have none: one that is in a file is refused with the tensors that nothing claims.
        let may = !matches!(architecture, Architecture::Gemma3 | Architecture::Phi3);
        config["attention_bias"] = (may && biased(&ATTENTION)).into();
        config["mlp_bias"] = (may && biased(&MLP)).into();
    }
    if architecture == Architecture::Gemma3 {
        gemma::add_fields(metadata, &key, &mut config, layers)?;
        return Ok(config);
    }
    let window = window(metadata, &key)?;
    match architecture {
        Architecture::Llama => config["rope_interleaved"] = false.into(),
        Architecture::Mistral => config["sliding_window"] = window.into(),
        Architecture::Phi3 => {
            if metadata.size(&key(WINDOW))?.is_none() {
                return Err(unsupported(&key(WINDOW), "missing", NO_WINDOW_KEY));
            }
            config["sliding_window"] = window.into();
            if rotated != head_dim {
                config["partial_rotary_factor"] = longrope::share(rotated, head_dim).into();
            }
            if let Some(original) = metadata.size(&key(longrope::ORIGINAL))? {
                config["original_max_position_embeddings"] = original.into();
            }
        }
        Architecture::Qwen2 | Architecture::Qwen3 | Architecture::SmolLm3 => {
            // Which layers have it the file does not say.
            if let Some(got) = window.filter(|&keys| keys < context) {
                let limit = "0 for none, or no less than the context length";
                return Err(unsupported(&key(WINDOW), &got.to_string(), limit));
            }
            config["use_sliding_window"] = false.into();
            // Nor which layers have no positions: llama.cpp has the number in its code.
            if let Some(every) = architecture.unrotated_interval() {
                let rotated = |layer: u64| u64::from(!layer.is_multiple_of(every as u64));
                config["no_rope_layers"] = (1..=layers).map(rotated).collect();
                config["no_rope_layer_interval"] = every.into();
            }
        }
        Architecture::Gemma3 => {}
    }
    Ok(config)
}

/// The number of layers, small enough for lists of what each of them has.
fn checked_layers(key: &impl Fn(&str) -> String, got: u64) -> Result<u64, GgufError> {
    match got <= MAX_LAYERS as u64 {
        true => Ok(got),
        false => Err(GgufError::Contradiction {
            key: key("block_count"),
            got: got.to_string(),
            expected: format!("at most {MAX_LAYERS} layers"),
            way_out: "the file is damaged, fetch it again",
        }),
    }
}

/// The window of every layer; 0 is none.
fn window(metadata: &Metadata, key: &impl Fn(&str) -> String) -> Result<Option<u64>, GgufError> {
    let pattern = key(PATTERN);
    if metadata.get(&pattern).is_some() {
        let limit = "no pattern: one window for every layer, or none";
        return Err(unsupported(&pattern, "there", limit));
    }
    Ok(metadata.size(&key(WINDOW))?.filter(|&keys| keys > 0))
}

/// The text of generation_config.json. Separate tokens for the end of a turn and of a message end a text too.
pub(super) fn generation_json(
    metadata: &Metadata,
    tokens: &TokenMetadata,
) -> Result<Value, GgufError> {
    let mut ends: Vec<u64> = tokens.eos.map(u64::from).into_iter().collect();
    for key in ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
        let end = metadata.size(key)?;
        let known = |id: &u64| *id < tokens.vocab_size as u64 && !ends.contains(id);
        ends.extend(end.filter(known));
    }
    let eos = match ends[..] {
        [] => Value::Null,
        [only] => json!(only),
        _ => json!(ends),
    };
    Ok(json!({ "bos_token_id": tokens.bos, "eos_token_id": eos, "pad_token_id": tokens.padding }))
}

/// Refuses what is no whole model: a vision part (`mmproj`), an adapter, or a model with its vision part in one file.
fn refuse_parts(metadata: &Metadata) -> Result<(), GgufError> {
    let key = "general.type";
    if let Some(other) = metadata.text(key)?.filter(|&kind| kind != "model") {
        let limit = "model: give the file of the text model itself";
        return Err(unsupported(key, other, limit));
    }
    let mut keys = metadata.iter().map(|(name, _)| name);
    match keys.find(|name| name.contains(".vision.")) {
        Some(key) => Err(unsupported(
            key,
            "there",
            "models without a vision part: convert the text model alone, or use its Hugging Face directory",
        )),
        None => Ok(()),
    }
}

fn refuse_variants(file: &GgufFile, key: &impl Fn(&str) -> String) -> Result<(), GgufError> {
    let metadata = &file.metadata;
    for (name, neutral, limit) in VARIANTS {
        let key = key(name);
        if let Some(got) = metadata
            .float(&key)?
            .filter(|got| ![0.0, *neutral].contains(got))
        {
            return Err(unsupported(&key, &got.to_string(), limit));
        }
    }
    let causal = key("attention.causal");
    if metadata.flag(&causal)? == Some(false) {
        return Err(unsupported(
            &causal,
            "false",
            "true: rows see keys up to their own",
        ));
    }
    let experts = key("expert_count");
    if let Some(got) = metadata.size(&experts)?.filter(|&count| count > 0) {
        return Err(unsupported(
            &experts,
            &got.to_string(),
            "dense models, 0 experts",
        ));
    }
    if let Some(got) = metadata.size("split.count")?.filter(|&count| count > 1) {
        return Err(unsupported(
            "split.count",
            &got.to_string(),
            "models in one file, merge the parts first",
        ));
    }
    Ok(())
}

/// Rounds to six significant digits.
fn six_digits(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}

pub(super) fn unsupported(key: &str, got: &str, supported: &'static str) -> GgufError {
    let got = got.chars().take(80).collect();
    GgufError::Unsupported {
        key: key.to_owned(),
        got,
        supported,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_digits_undo_the_rounding_to_f32() {
        for eps in [1e-5, 1e-6, 1e-12, 0.00123456] {
            assert_eq!(six_digits(f64::from(eps as f32)), eps);
        }
    }
}
