//! Attention of every layer: which of them have positions, and which a window.

use serde_json::Value;

use super::parse::{FILE, MAX_LAYERS, optional};
use super::{Architecture, Fields, LayerAttention, LayerRotation, describe, window};
use crate::ConfigError;

/// Flags of the layers that have positions: 1 or true, against the key's name.
const ROTATED: &str = "no_rope_layers";
/// Every so many layers one has no positions.
const INTERVAL: &str = "no_rope_layer_interval";

/// The attention of each of `layers` layers, with the model's rotation wherever a layer has positions.
pub(super) fn parse(
    fields: Fields<'_>,
    family: Architecture,
    layers: usize,
) -> Result<Vec<LayerAttention>, ConfigError> {
    let rotated = rotated(fields, family, layers)?;
    let windows = window::parse(fields, family, &rotated)?;
    let each = rotated.into_iter().zip(windows);
    let attention = each.map(|(rotated, window)| LayerAttention {
        window,
        rotation: match rotated {
            true => LayerRotation::Main,
            false => LayerRotation::None,
        },
    });
    Ok(attention.collect())
}

/// Tells of each layer whether it has positions.
fn rotated(
    fields: Fields<'_>,
    family: Architecture,
    layers: usize,
) -> Result<Vec<bool>, ConfigError> {
    let Some(interval) = family.unrotated_interval() else {
        return Ok(vec![true; layers]);
    };
    let Some(got) = fields.get(ROTATED) else {
        let interval = optional(fields, INTERVAL, MAX_LAYERS)?.unwrap_or(interval);
        let rotated = |layer: usize| !(layer + 1).is_multiple_of(interval);
        return Ok((0..layers).map(rotated).collect());
    };
    let flag = |flag: &Value| match flag {
        Value::Bool(flag) => Some(*flag),
        other => match other.as_u64() {
            Some(flag @ (0 | 1)) => Some(flag == 1),
            _ => None,
        },
    };
    let list = got.as_array().map_or(&[][..], Vec::as_slice);
    let flags: Option<Vec<bool>> = list.iter().map(flag).collect();
    match flags {
        // Files of models that were cut shorter keep the longer list.
        Some(mut flags) if flags.len() >= layers => {
            flags.truncate(layers);
            Ok(flags)
        }
        _ => Err(ConfigError::Value {
            file: FILE,
            field: ROTATED,
            got: describe(got),
            expected: format!(
                "a list of at least {layers}, one for each layer: 1 for a layer with positions, 0 for one without"
            ),
        }),
    }
}
