//! A pattern for every head of every layer, as an offline search writes it.
//!
//! JSON, a list of layers, each a list of patterns by query head (or by KV head):
//!
//! ```json
//! [[{"kind": "triangular", "sink": 128, "window": 512, "last": 128}, {"kind": "dense"}]]
//! ```

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{error::AttentionError, pattern::Pattern};

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

    /// The patterns of a layer whose index has `heads` heads.
    ///
    /// # Errors
    /// [`AttentionError::Setting`] if there is no such layer, or it has another number of heads.
    pub fn layer(&self, layer: usize, heads: usize) -> Result<&[Pattern], AttentionError> {
        let refuse = |field, got: usize, limit: String| AttentionError::Setting {
            op: "head patterns",
            field,
            got: got.to_string(),
            limit,
            hint: "search the patterns of this model, for the heads that choose",
        };
        let known = self.0.len();
        let row = self
            .0
            .get(layer)
            .ok_or_else(|| refuse("layer", layer, format!("below {known}, the layers listed")))?;
        if row.len() != heads {
            let limit = format!("{heads}, the heads that choose in layer {layer}");
            return Err(refuse("heads", row.len(), limit));
        }
        Ok(row)
    }

    /// Checks every pattern: each must be dense, Triangular, or chosen from the input.
    ///
    /// # Errors
    /// The first that is out of range, or has no place here.
    pub fn validate(&self) -> Result<(), AttentionError> {
        for (layer, row) in self.0.iter().enumerate() {
            for pattern in row {
                pattern.validate()?;
                if matches!(pattern, Pattern::FixedBlocks(_)) {
                    return Err(AttentionError::Setting {
                        op: "head patterns",
                        field: "kind",
                        got: format!("{} in layer {layer}", pattern.name()),
                        limit:
                            "dense, triangular, interval-slash, block-cluster, hybrid or dynamic"
                                .into(),
                        hint: "forced densities hold for a whole model",
                    });
                }
            }
        }
        Ok(())
    }
}
