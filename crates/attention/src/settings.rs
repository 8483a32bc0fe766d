//! Wishes of a caller and the decision over them: settings in, a [`Decision`] out.
//!
//! Nothing changes path in silence: every plan carries the decision with its reason, the density
//! of what will be computed and the pattern that rules it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    error::AttentionError,
    pattern::{FixedBlocks, Pattern},
    select::{HeadPatterns, IndexSelector, Selection, SharedSelector},
};

/// Use of a sparse pattern: never, always, or by length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AttentionMode {
    /// Sparse from [`AttentionSettings::min_sparse_len`] prompt tokens on, dense below.
    #[default]
    Auto,
    /// Always every key.
    Dense,
    /// Always the pattern, however short the prompt.
    Sparse,
}

/// How attention is computed. Serialised as TOML or JSON; every field has a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AttentionSettings {
    /// Dense, sparse, or by prompt length.
    pub mode: AttentionMode,
    /// The sparse pattern.
    pub pattern: Pattern,
    /// Prompt tokens from which `auto` is sparse. The default is where a selection pays on every card that
    /// was measured; `calibrate` finds the length of yours.
    pub min_sparse_len: usize,
    /// How heads choose their keys, for patterns that do.
    pub selection: Selection,
    /// A pattern for every head of every layer, in place of `pattern`; see [`HeadPatterns`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heads: Option<HeadPatterns>,
    /// Blocks that attention reads in place of what the heads select, in every layer, the first dense ones
    /// included: the selection runs whole and its index is left unread. Records tell what it chose, but the
    /// recall that the blocks have. Random weights give a selection nothing to find: this is how it is
    /// timed together with attention of a given density. The blocks' heads must be those that choose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub imposed: Option<FixedBlocks>,
    /// A selector that chooses the keys in place of `pattern`, see [`IndexSelector`]; `selection` is not read
    /// then, and `heads` and `imposed` must be `None`. It is written out by its name and cannot be read back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<SharedSelector>,
}

impl Default for AttentionSettings {
    fn default() -> Self {
        Self {
            mode: AttentionMode::Auto,
            pattern: Pattern::GroupBlocks,
            min_sparse_len: 16_384,
            selection: Selection::default(),
            heads: None,
            imposed: None,
            selector: None,
        }
    }
}

impl AttentionSettings {
    /// Dense attention, whatever the length.
    pub fn dense() -> Self {
        Self {
            mode: AttentionMode::Dense,
            ..Self::default()
        }
    }

    /// Tells whether keys are chosen from the input, by the heads or by a selector, where attention is not
    /// dense.
    pub fn selects(&self) -> bool {
        self.pattern.selects() || self.heads.is_some() || self.selector.is_some()
    }

    /// Counts the heads of the index that a selection by the one pattern writes, given the query heads and the
    /// KV heads of a model.
    pub fn choices(&self, query_heads: usize, kv_heads: usize) -> usize {
        self.selection.granularity.choices(query_heads, kv_heads)
    }

    /// Checks every part.
    ///
    /// # Errors
    /// [`AttentionError::Setting`] with the first field that is out of range, or blocks imposed on a pattern
    /// whose heads choose nothing; [`AttentionError::SelectorBeside`] for a selector beside patterns by head or
    /// imposed blocks.
    pub fn validate(&self) -> Result<(), AttentionError> {
        self.pattern.validate()?;
        self.selection.validate()?;
        if let Some(heads) = &self.heads {
            heads.validate()?;
        }
        if let Some(selector) = &self.selector {
            let beside = [
                ("heads", self.heads.is_some()),
                ("imposed", self.imposed.is_some()),
            ];
            if let Some((other, _)) = beside.into_iter().find(|(_, given)| *given) {
                let selector = selector.name();
                return Err(AttentionError::SelectorBeside { selector, other });
            }
        }
        let Some(imposed) = &self.imposed else {
            return Ok(());
        };
        Pattern::FixedBlocks(*imposed).validate()?;
        let dense = self.mode == AttentionMode::Dense || self.pattern == Pattern::Dense;
        if self.selects() || dense {
            return Ok(());
        }
        Err(AttentionError::Setting {
            op: "attention",
            field: "imposed",
            got: self.pattern.name().to_owned(),
            limit: "a pattern whose heads choose from the input".to_owned(),
            hint: "take the pattern `dynamic`, or `fixed-blocks` without a selection",
        })
    }

    /// Tells whether the mode lets a prompt of so many tokens be anything but dense.
    pub fn is_sparse_at(&self, prompt: usize) -> bool {
        match self.mode {
            AttentionMode::Dense => false,
            AttentionMode::Sparse => true,
            AttentionMode::Auto => prompt >= self.min_sparse_len,
        }
    }

    /// The keys that a selector chooses, whatever the length.
    pub fn selected_by(selector: impl IndexSelector + 'static) -> Self {
        Self {
            mode: AttentionMode::Sparse,
            selector: Some(SharedSelector::new(selector)),
            ..Self::default()
        }
    }

    /// The given pattern, whatever the length.
    pub fn sparse(pattern: Pattern) -> Self {
        Self {
            mode: AttentionMode::Sparse,
            pattern,
            ..Self::default()
        }
    }
}

/// Which computation runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Path {
    /// Every causal key, by implicit ranges.
    Dense,
    /// The keys of an index.
    Sparse,
    /// The keys that every head, or a selector, chooses from the input.
    Selected,
}

/// Why a path was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// The settings or the pattern say dense.
    DenseRequested,
    /// The settings say sparse.
    SparseRequested,
    /// The caller passed an index.
    IndexGiven,
    /// `auto`: the longest prompt of the batch is below the threshold.
    BelowThreshold {
        /// Longest prompt, tokens.
        prompt: usize,
        /// `min_sparse_len`.
        threshold: usize,
    },
    /// `auto`: the longest prompt of the batch reaches the threshold.
    AtOrAboveThreshold {
        /// Longest prompt, tokens.
        prompt: usize,
        /// `min_sparse_len`.
        threshold: usize,
    },
    /// The layer is one of the first, which the settings keep dense.
    DenseLayer {
        /// The layer, from 0.
        layer: usize,
        /// Layers from the first that are dense.
        dense_layers: usize,
    },
    /// The pattern keeps every causal key of these rows, so dense is the same computation.
    PatternKeepsAll,
    /// The chunk has too few new rows for a selection to be worth its time.
    ChunkTooShort {
        /// New rows of the longest sequence.
        rows: usize,
        /// Fewest rows that select.
        least: usize,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::DenseRequested => write!(f, "dense was asked for"),
            Reason::SparseRequested => write!(f, "sparse was asked for"),
            Reason::IndexGiven => write!(f, "the caller gave an index"),
            Reason::BelowThreshold { prompt, threshold } => write!(
                f,
                "auto: {prompt} prompt tokens are fewer than min_sparse_len = {threshold}"
            ),
            Reason::AtOrAboveThreshold { prompt, threshold } => write!(
                f,
                "auto: {prompt} prompt tokens reach min_sparse_len = {threshold}"
            ),
            Reason::ChunkTooShort { rows, least } => write!(
                f,
                "{rows} new rows are fewer than the {least} from which a selection pays"
            ),
            Reason::DenseLayer {
                layer,
                dense_layers,
            } => write!(
                f,
                "layer {layer} is one of the first {dense_layers}, dense by setting"
            ),
            Reason::PatternKeepsAll => {
                write!(
                    f,
                    "the pattern keeps every key of these rows, so dense is the same"
                )
            }
        }
    }
}

/// The decision over one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Dense or sparse.
    pub path: Path,
    /// The pattern that rules the chunk ([`Pattern::Dense`] on the dense path, [`Pattern::Index`] where a
    /// selector chooses).
    pub pattern: Pattern,
    /// Kept (query, key) pairs over all that the model lets the chunk's rows see, 0 to 1. `None` on a plan
    /// whose keys are chosen from the input: each layer's is in its
    /// [`SelectionRecord`](crate::SelectionRecord). The blocks' where blocks are imposed.
    pub density: Option<f64>,
    /// All pairs that the chunk's rows may see, for one head: causal, and inside the window where there is
    /// one. The weight of `density` when chunks are averaged.
    pub causal_pairs: u64,
    /// Why.
    pub reason: Reason,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = match self.path {
            Path::Dense => "dense",
            Path::Sparse => "sparse",
            Path::Selected => "selected",
        };
        write!(f, "{path} ({})", self.pattern.name())?;
        if let Some(density) = self.density {
            write!(f, ", density {density:.3}")?;
        }
        write!(f, ": {}", self.reason)
    }
}
