//! Settings of a selection: the quality contract first, then what the estimates may spend.

use serde::{Deserialize, Serialize};
use sparse_accelerate_contract::{Correction, Prices};

use crate::error::AttentionError;

/// How heads choose their keys. Every field has a default.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Selection {
    /// The quality contract: least share of the softmax mass that must lie on kept keys, 0 to 1, measured on a
    /// few rows of every chunk; heads that would keep less see every key. Under [`crate::Pattern::GroupBlocks`] it is
    /// what a choice begins with: the share of the mass outside the sinks that is kept by the estimate, and `error`
    /// is the contract.
    pub recall: f32,
    /// The quality contract of [`crate::Pattern::GroupBlocks`]: largest error of a head's output, measured on a few rows of every
    /// chunk, `|o - o_dense|` over the mean `|o_dense|` of the layer's heads (both root mean squares over rows; heads that
    /// share a choice keep it together). Heads that are off by more keep half of what they left out as well, and if that
    /// is not enough every key.
    pub error: f32,
    /// The stand-in for the keys that are left out.
    pub correction: Correction,
    /// Whose keys one choice is for: a query head's, or those of all query heads of a KV head.
    pub granularity: Granularity,
    /// Layers from the first that are always dense.
    pub dense_layers: usize,
    /// Tokens at the start of the prompt that every row sees which the model lets see them.
    pub sink: usize,
    /// Latest tokens, the row itself included, that every row sees. At least 1.
    pub window: usize,
    /// Rows at the end of the prompt that see everything that the model lets them see.
    pub last: usize,
    /// A column is kept if its mean share of a row's mass is at least this many times the uniform share
    /// `1 / kv_len` (one over the model's window where that is shorter), and at least 2.5e-4 (what one row of 64 with 1.6 % gives is noise).
    pub column_share: f32,
    /// A slash of 16 offsets is kept if its share is at least this many times the uniform share of the 80
    /// keys a query tile reads for it.
    pub slash_share: f32,
    /// Prices of the choices on this device.
    pub costs: Prices,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            recall: 0.9,
            error: 0.1,
            correction: Correction::Mean,
            granularity: Granularity::PerQueryHead,
            dense_layers: 0,
            sink: 128,
            window: 512,
            last: 128,
            column_share: 8.0,
            slash_share: 8.0,
            costs: Prices::default(),
        }
    }
}

/// The heads that one choice of keys is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Granularity {
    /// The query heads of a KV head share one choice, and the keys they load: judged by the worst of them, under
    /// [`crate::Pattern::GroupBlocks`] by the error of their outputs together.
    PerKvHead,
    /// Every query head on its own: at the same divergence from dense, about half the density on a trained model with
    /// seven to a group.
    #[default]
    PerQueryHead,
}

impl Granularity {
    /// The number of choices, given the query heads and the KV heads of a model.
    #[must_use]
    pub fn choices(self, query_heads: usize, kv_heads: usize) -> usize {
        match self {
            Self::PerQueryHead => query_heads,
            Self::PerKvHead => kv_heads,
        }
    }
}

impl Selection {
    /// Checks every field.
    ///
    /// # Errors
    /// [`AttentionError::Setting`] with the field, its value and its range.
    pub fn validate(&self) -> Result<(), AttentionError> {
        let refuse = |field, got: String, limit: &str| {
            Err(AttentionError::Setting {
                op: "selection",
                field,
                got,
                limit: limit.to_owned(),
                hint: "take the default, or a preset",
            })
        };
        if !(0.0..=1.0).contains(&self.recall) {
            return refuse("recall", self.recall.to_string(), "between 0 and 1");
        }
        if self.window == 0 {
            return refuse("window", "0".into(), "at least 1");
        }
        let costs = &self.costs;
        for (field, got) in [
            ("error", self.error),
            ("column_share", self.column_share),
            ("slash_share", self.slash_share),
            ("costs.dense_tile", costs.dense_tile),
            ("costs.tile", costs.tile),
            ("costs.column", costs.column),
            ("costs.row", costs.row),
            ("correction.cap", self.correction.cap()),
        ] {
            if !got.is_finite() || got < 0.0 {
                return refuse(field, got.to_string(), "finite and not negative");
            }
        }
        Ok(())
    }
}
