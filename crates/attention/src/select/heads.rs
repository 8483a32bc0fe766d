//! A pattern for every head of every layer, as an offline search writes it.
//!
//! JSON, a list of layers, each a list of patterns by query head (or by KV head):
//!
//! ```json
//! [[{"kind": "triangular", "sink": 128, "window": 512, "last": 128}, {"kind": "dense"}]]
//! ```

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{error::AttentionError, heads::Heads, pattern::Pattern};

/// Patterns by layer and head. Cloning shares them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<Vec<Pattern>>", into = "Vec<Vec<Pattern>>")]
pub struct HeadPatterns(Arc<Vec<Vec<Pattern>>>);

impl From<Vec<Vec<Pattern>>> for HeadPatterns {
    fn from(layers: Vec<Vec<Pattern>>) -> Self {
        Self(Arc::new(layers))
    }
}

impl From<HeadPatterns> for Vec<Vec<Pattern>> {
    fn from(heads: HeadPatterns) -> Self {
        heads.0.to_vec()
    }
}

impl HeadPatterns {
    /// Patterns by head, of every layer.
    pub fn layers(&self) -> &[Vec<Pattern>] {
        &self.0
    }

    /// Checks that a layer is listed, with a pattern for every query head or for every KV head.
    ///
    /// # Errors
    /// [`AttentionError::Setting`] if there is no such layer, or it has another number of heads.
    pub fn check(&self, layer: usize, heads: Heads) -> Result<(), AttentionError> {
        let Some(row) = self.0.get(layer) else {
            return Err(Self::missing(layer, self.0.len()));
        };
        if row.len() == heads.query || row.len() == heads.kv {
            return Ok(());
        }
        let (query, kv) = (heads.query, heads.kv);
        let limit = format!("{query} (query heads) or {kv} (KV heads) in layer {layer}");
        Err(refused("heads", row.len(), limit))
    }

    /// The refusal of a layer past the `known` ones.
    pub(crate) fn missing(layer: usize, known: usize) -> AttentionError {
        refused("layer", layer, format!("below {known}, the layers listed"))
    }

    /// Checks every pattern: each must be dense, Triangular, or chosen from the input.
    ///
    /// # Errors
    /// The first that is out of range, or has no place here.
    pub fn validate(&self) -> Result<(), AttentionError> {
        for (layer, row) in self.0.iter().enumerate() {
            for pattern in row {
                pattern.validate()?;
                if matches!(
                    pattern,
                    Pattern::GroupBlocks | Pattern::FixedBlocks(_) | Pattern::Index
                ) {
                    return Err(AttentionError::Setting {
                        op: "head patterns",
                        field: "kind",
                        got: format!("{} in layer {layer}", pattern.name()),
                        limit:
                            "dense, triangular, interval-slash, block-cluster, hybrid or dynamic"
                                .into(),
                        hint: "blocks of groups and forced densities hold for a whole model",
                    });
                }
            }
        }
        Ok(())
    }
}

fn refused(field: &'static str, got: usize, limit: String) -> AttentionError {
    AttentionError::Setting {
        op: "head patterns",
        field,
        got: got.to_string(),
        limit,
        hint: "search the patterns of this model, for its query heads or its KV heads",
    }
}
