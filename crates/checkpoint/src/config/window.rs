//! Sliding window of a model: how many keys a row sees, its own included.
//!
//! Mistral's classes and Phi-3's give every layer a window wherever `sliding_window` is a number, and null is none; where the field
//! is left out, Mistral's have one of 4096 and Phi-3's none. Qwen's have one only with `use_sliding_window`, from layer
//! `max_window_layers` on; Llama's have none, whatever `sliding_window` says. A list of layers in `layer_types` must agree. One window
//! for every layer is honoured; a model that has it in some of its layers is refused.

use serde_json::Value;

use super::parse::{FILE, MAX_POSITIONS, optional};
use super::{Architecture, Fields, describe};
use crate::ConfigError;

const SIZE: &str = "sliding_window";
const SWITCH: &str = "use_sliding_window";
const LAYERS: &str = "layer_types";

/// The kind of all layers, as `layer_types` lists it.
#[derive(Clone, Copy, PartialEq)]
enum Listed {
    Full,
    Sliding,
}

/// The window of every layer of a model of `layers` layers; `None` where rows see all keys up to their own.
pub(super) fn parse(
    fields: Fields<'_>,
    architecture: Architecture,
    layers: usize,
) -> Result<Option<usize>, ConfigError> {
    let listed = listed(fields)?;
    let window = match architecture.window_by_size() {
        true => sized(fields, architecture)?,
        false => switched(fields, architecture, layers, listed)?,
    };
    match (listed, window) {
        (Some(Listed::Full), Some(keys)) => Err(disagree(fields, SIZE, keys.to_string())),
        (Some(Listed::Sliding), None) => {
            let field = match architecture.window_by_size() {
                true => SIZE,
                false => SWITCH,
            };
            let got = fields.get(field).map_or("null".to_owned(), describe);
            Err(disagree(fields, field, got))
        }
        (_, window) => Ok(window),
    }
}

/// The kind that `layer_types` gives every layer; `None` without a list.
fn listed(fields: Fields<'_>) -> Result<Option<Listed>, ConfigError> {
    let Some(got) = fields.get(LAYERS) else {
        return Ok(None);
    };
    let list = got.as_array().map_or(&[][..], Vec::as_slice);
    let all = |kind: &str| list.iter().all(|of| of.as_str() == Some(kind));
    match list {
        [] if got.is_array() => Ok(None),
        [_, ..] if all("full_attention") => Ok(Some(Listed::Full)),
        [_, ..] if all("sliding_attention") => Ok(Some(Listed::Sliding)),
        _ => Err(ConfigError::UnsupportedFeature {
            field: LAYERS,
            got: describe(got),
            way_out: "every layer must be full_attention, or every layer sliding_attention",
        }),
    }
}

/// The window of a class that has one by its size alone.
fn sized(fields: Fields<'_>, architecture: Architecture) -> Result<Option<usize>, ConfigError> {
    let window = size(fields, architecture)?;
    match (fields.get(SWITCH), window) {
        (Some(Value::Bool(false)), Some(keys)) => Err(ConfigError::Conflict {
            file: FILE,
            field: SWITCH,
            got: "false".to_owned(),
            other: SIZE,
            other_got: keys.to_string(),
            rule: "this family has a window wherever sliding_window is a number, null is none",
        }),
        _ => Ok(window),
    }
}

/// The window of a class that has one where `use_sliding_window` says so. The list of layers goes first; then it is none where there is
/// no size, or where the layers that have none are all there are.
fn switched(
    fields: Fields<'_>,
    architecture: Architecture,
    layers: usize,
    listed: Option<Listed>,
) -> Result<Option<usize>, ConfigError> {
    let off = |got: &&Value| got.as_bool() == Some(false) || got.as_f64() == Some(0.0);
    let Some(got) = fields.get(SWITCH).filter(|got| !off(got)) else {
        return Ok(None);
    };
    let without = fields.size("max_window_layers")?;
    let none = match listed {
        Some(kind) => kind == Listed::Full,
        None => without.is_some_and(|without| without >= layers as u64),
    };
    let all = listed == Some(Listed::Sliding) || without == Some(0);
    match got.as_bool() {
        Some(true) if none || fields.is_null(SIZE) => Ok(None),
        Some(true) if all && architecture != Architecture::Llama => size(fields, architecture),
        _ => Err(ConfigError::UnsupportedFeature {
            field: SWITCH,
            got: describe(got),
            way_out: "a window that only some layers have is not, use a model where all have it (max_window_layers 0) or none \
                      (max_window_layers of num_hidden_layers)",
        }),
    }
}

fn size(fields: Fields<'_>, architecture: Architecture) -> Result<Option<usize>, ConfigError> {
    match optional(fields, SIZE, MAX_POSITIONS)? {
        None if !fields.is_null(SIZE) => Ok(architecture.default_window()),
        window => Ok(window),
    }
}

fn disagree(fields: Fields<'_>, other: &'static str, other_got: String) -> ConfigError {
    ConfigError::Conflict {
        file: FILE,
        field: LAYERS,
        got: fields.get(LAYERS).map(describe).unwrap_or_default(),
        other,
        other_got,
        rule: "layers of sliding_attention have a window, and layers of full_attention have none",
    }
}
