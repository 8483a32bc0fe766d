//! Presets: one word for a point between quality and time.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use sparse_accelerate_contract::Correction;

use super::Selection;
use crate::{
    pattern::{Dynamic, Pattern},
    settings::AttentionSettings,
};

/// Named settings, from exact to fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Preset {
    /// Dense attention.
    Exact,
    /// The output of every query head is within 0.05 of dense attention's, on rows that are measured and relative to the
    /// layer's mean head; the first two layers are dense.
    Safe,
    /// Within 0.1.
    #[default]
    Balanced,
    /// Within 0.2.
    Fast,
    /// The three patterns of SparseAccelerate (arXiv 2412.06198) and dense, no union, no correction.
    Paper,
}

impl Preset {
    /// Every preset, from exact to fast, then the paper's.
    pub const ALL: [Self; 5] = [
        Self::Exact,
        Self::Safe,
        Self::Balanced,
        Self::Fast,
        Self::Paper,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Safe => "safe",
            Self::Balanced => "balanced",
            Self::Fast => "fast",
            Self::Paper => "paper",
        }
    }

    /// The settings that the preset stands for; sparse from [`AttentionSettings::min_sparse_len`] on.
    pub fn settings(self) -> AttentionSettings {
        let groups = |recall, error, dense_layers| AttentionSettings {
            pattern: Pattern::GroupBlocks,
            selection: Selection {
                recall,
                error,
                dense_layers,
                ..Selection::default()
            },
            ..AttentionSettings::default()
        };
        match self {
            Self::Exact => AttentionSettings::dense(),
            Self::Safe => groups(0.9, 0.05, 2),
            Self::Balanced => groups(0.9, 0.1, 0),
            Self::Fast => groups(0.85, 0.2, 0),
            Self::Paper => AttentionSettings {
                pattern: Pattern::Dynamic(Dynamic {
                    hybrid: false,
                    ..Dynamic::default()
                }),
                selection: Selection {
                    recall: 0.95,
                    correction: Correction::None,
                    ..Selection::default()
                },
                ..AttentionSettings::default()
            },
        }
    }
}

impl FromStr for Preset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|preset| preset.name() == text);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("`{text}` is no preset; one of {names}")
        })
    }
}
