//! Sliding windows of a model: how many keys a row of a layer sees, its own included.
//!
//! `layer_types` says which layers have one: `sliding_attention` or `full_attention`. Where it is left out the family decides
//! ([`WindowRule`]), and where it is there it must agree with the keys that switch windows on or off. All windows of a model have one size.

use serde_json::Value;

use super::family::WindowRule;
use super::parse::{FILE, MAX_LAYERS, MAX_POSITIONS, optional};
use super::{Architecture, Fields, describe};
use crate::ConfigError;

const SIZE: &str = "sliding_window";
const SWITCH: &str = "use_sliding_window";
const KINDS: &str = "layer_types";
const FROM: &str = "max_window_layers";
/// The first layer with a window where [`FROM`] is left out.
const DEFAULT_FROM: u64 = 28;
/// Names under which Gemma's files have the distance of layers without a window.
const PATTERN: [&str; 2] = ["sliding_window_pattern", "_sliding_window_pattern"];
const DEFAULT_PATTERN: usize = 6;

/// The window of every layer; `None` where rows see all keys up to their own. `rotated` tells which layers have positions.
pub(super) fn parse(
    fields: Fields<'_>,
    family: Architecture,
    rotated: &[bool],
) -> Result<Vec<Option<usize>>, ConfigError> {
    let listed = listed(fields, rotated.len())?;
    let rule = family.window_rule();
    let windows = match rule {
        WindowRule::Size => sized(fields, family, rotated.len(), listed.as_deref())?,
        WindowRule::Pattern => patterned(fields, family, rotated.len(), listed.as_deref())?,
        _ => switched(fields, family, rotated, listed.as_deref())?,
    };
    // A list that speaks of windows which nothing switches on, and the other way about.
    let agrees = |list: &Vec<bool>| list.iter().zip(&windows).all(|(a, b)| *a == b.is_some());
    if listed.as_ref().is_none_or(agrees) {
        return Ok(windows);
    }
    let other = match rule {
        WindowRule::Size | WindowRule::Pattern => SIZE,
        _ => SWITCH,
    };
    let shown = |field| fields.get(field).map_or("null".to_owned(), describe);
    Err(ConfigError::Conflict {
        file: FILE,
        field: KINDS,
        got: shown(KINDS),
        other,
        other_got: shown(other),
        rule: "layers of sliding_attention have a window, and layers of full_attention have none",
    })
}

/// Tells of each layer whether `layer_types` gives it a window; `None` without a list.
fn listed(fields: Fields<'_>, layers: usize) -> Result<Option<Vec<bool>>, ConfigError> {
    let Some(got) = fields.get(KINDS) else {
        return Ok(None);
    };
    let list = got.as_array().map_or(&[][..], Vec::as_slice);
    if list.is_empty() && got.is_array() {
        return Ok(None);
    }
    let sliding = |kind: &Value| match kind.as_str() {
        Some("full_attention") => Some(false),
        Some("sliding_attention") => Some(true),
        _ => None,
    };
    let kinds: Option<Vec<bool>> = list.iter().map(sliding).collect();
    match kinds {
        Some(kinds) if kinds.len() == layers => Ok(Some(kinds)),
        Some(kinds) if !kinds.is_empty() => Err(ConfigError::Value {
            file: FILE,
            field: KINDS,
            got: format!("a list of {}", kinds.len()),
            expected: format!("one entry for each of {layers} layers"),
        }),
        _ => Err(ConfigError::UnsupportedFeature {
            field: KINDS,
            got: describe(got),
            way_out: "layers are full_attention or sliding_attention",
        }),
    }
}

/// Windows of a family that has them by their size alone: in the layers that are listed, or in all.
fn sized(
    fields: Fields<'_>,
    family: Architecture,
    layers: usize,
    listed: Option<&[bool]>,
) -> Result<Vec<Option<usize>>, ConfigError> {
    let window = size(fields, family)?;
    if let (Some(Value::Bool(false)), Some(keys)) = (fields.get(SWITCH), window) {
        return Err(ConfigError::Conflict {
            file: FILE,
            field: SWITCH,
            got: "false".to_owned(),
            other: SIZE,
            other_got: keys.to_string(),
            rule: "this family has a window wherever sliding_window is a number, null is none",
        });
    }
    Ok(match listed {
        // A list of full attention alone contradicts the size.
        Some(list) if list.contains(&true) => windows(list.iter().copied(), window),
        _ => vec![window; layers],
    })
}

/// Windows of a family that has them in all layers but every so many.
fn patterned(
    fields: Fields<'_>,
    family: Architecture,
    layers: usize,
    listed: Option<&[bool]>,
) -> Result<Vec<Option<usize>>, ConfigError> {
    let mut every = None;
    for field in PATTERN {
        every = every.or(optional(fields, field, MAX_LAYERS)?);
    }
    let every = every.unwrap_or(DEFAULT_PATTERN);
    let window = size(fields, family)?;
    Ok(match listed {
        Some(list) => windows(list.iter().copied(), window),
        None => windows((1..=layers).map(|n| !n.is_multiple_of(every)), window),
    })
}

/// Windows of a family that has them where `use_sliding_window` says so, in the layers that are listed or that its rule names.
fn switched(
    fields: Fields<'_>,
    family: Architecture,
    rotated: &[bool],
    listed: Option<&[bool]>,
) -> Result<Vec<Option<usize>>, ConfigError> {
    let layers = rotated.len();
    let off = |got: &&Value| got.as_bool() == Some(false) || got.as_f64() == Some(0.0);
    let Some(got) = fields.get(SWITCH).filter(|got| !off(got)) else {
        return Ok(vec![None; layers]);
    };
    if got.as_bool() != Some(true) {
        return Err(fields.wrong(SWITCH, got, "true or false"));
    }
    let from = fields.size(FROM)?;
    let after = |from| (0..layers as u64).map(|layer| layer >= from).collect();
    let sliding: Vec<bool> = match (listed, family.window_rule()) {
        (Some(list), _) => list.to_vec(),
        (None, WindowRule::Unrotated) => rotated.iter().map(|rotated| !rotated).collect(),
        (None, WindowRule::From) => after(from.unwrap_or(DEFAULT_FROM)),
        (None, _) => after(from.unwrap_or(0)),
    };
    if !sliding.contains(&true) || fields.is_null(SIZE) {
        return Ok(vec![None; layers]);
    }
    if family.window_rule() == WindowRule::Never {
        return Err(ConfigError::UnsupportedFeature {
            field: SWITCH,
            got: describe(got),
            way_out: "models of this family have no window",
        });
    }
    Ok(windows(sliding.into_iter(), size(fields, family)?))
}

fn windows(sliding: impl Iterator<Item = bool>, window: Option<usize>) -> Vec<Option<usize>> {
    let each = sliding.map(|sliding| window.filter(|_| sliding));
    each.collect()
}

fn size(fields: Fields<'_>, family: Architecture) -> Result<Option<usize>, ConfigError> {
    match optional(fields, SIZE, MAX_POSITIONS)? {
        None if !fields.is_null(SIZE) => Ok(family.default_window()),
        window => Ok(window),
    }
}
