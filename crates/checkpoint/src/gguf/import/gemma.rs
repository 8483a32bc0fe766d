//! Fields of config.json that a Gemma 3 has beside the others: windows by layers, the base of their positions, the scale of scores.
//!
//! The rest is in llama.cpp's code alone, which is followed here (`llama_model_gemma3::load_arch_hparams`): the sixth of every six layers has
//! no window, those with one have positions of base 10000 that no scaling stretches, and scores are divided by the square root of a
//! head's size, except in the model of 62 layers.

use serde_json::Value;

use super::config::{PATTERN, WINDOW, unsupported};
use crate::GgufError;
use crate::gguf::metadata::Metadata;
use crate::gguf::value::Value as Stored;

/// Base of the positions of layers with a window.
const LOCAL_THETA: &str = "rope.freq_base_swa";
const DEFAULT_LOCAL_THETA: f64 = 10_000.0;
/// Every so many layers one has no window where the file does not say.
const DEFAULT_PATTERN: u64 = 6;
const PATTERNS: &str =
    "a number of layers above zero of which the last has no window, or a flag for each layer";
/// Layers of Gemma 3 27B, whose scores are divided by the square root of the width over the heads.
const LAYERS_OF_27B: u64 = 62;

/// Completes the fields that all families have.
pub(super) fn add_fields(
    metadata: &Metadata,
    key: &impl Fn(&str) -> String,
    config: &mut Value,
    layers: u64,
) -> Result<(), GgufError> {
    let window = metadata.size(&key(WINDOW))?.filter(|&keys| keys > 0);
    let sliding = match window {
        Some(_) => sliding(metadata, key, layers)?,
        None => vec![false; layers as usize],
    };
    // In layers with a window llama.cpp and transformers make different things of YaRN.
    let scaling = &config["rope_scaling"]["rope_type"];
    if let (Some(_), Some(kind)) = (window, scaling.as_str().filter(|&kind| kind != "linear")) {
        let limit = "linear or none beside windows: use the Hugging Face directory of the model";
        return Err(unsupported(&key("rope.scaling.type"), kind, limit));
    }
    let kinds = sliding.iter().map(|&sliding| match sliding {
        true => "sliding_attention",
        false => "full_attention",
    });
    config["layer_types"] = kinds.collect();
    config["sliding_window"] = window.into();
    let local = metadata.float(&key(LOCAL_THETA))?;
    config["rope_local_base_freq"] = local.unwrap_or(DEFAULT_LOCAL_THETA).into();

    let size = |field: &str| config[field].as_u64().unwrap_or_default();
    let scalar = match layers {
        LAYERS_OF_27B => size("hidden_size").checked_div(size("num_attention_heads")),
        _ => Some(size("head_dim")),
    };
    config["query_pre_attn_scalar"] = scalar.into();
    Ok(())
}

/// Tells of each layer whether it has a window.
fn sliding(
    metadata: &Metadata,
    key: &impl Fn(&str) -> String,
    layers: u64,
) -> Result<Vec<bool>, GgufError> {
    let every = |every: u64| (1..=layers).map(|n| !n.is_multiple_of(every)).collect();
    let refuse = |got: &str| Err(unsupported(&key(PATTERN), got, PATTERNS));
    let stored = match metadata.get(&key(PATTERN)) {
        None => return Ok(every(DEFAULT_PATTERN)),
        Some(Stored::Integer(got)) => {
            return match u64::try_from(*got) {
                Ok(pattern) if pattern > 0 => Ok(every(pattern)),
                _ => refuse(&got.to_string()),
            };
        }
        Some(Stored::Array(flags)) => flags,
        Some(other) => return refuse(other.type_name()),
    };
    let flag = |flag: &Stored| match flag {
        Stored::Bool(flag) => Some(*flag),
        Stored::Integer(flag @ (0 | 1)) => Some(*flag == 1),
        _ => None,
    };
    match stored.iter().map(flag).collect::<Option<Vec<bool>>>() {
        Some(flags) if flags.len() as u64 == layers => Ok(flags),
        _ => refuse(&format!("{} entries for {layers} layers", stored.len())),
    }
}
