//! Attention patterns: which keys a query row may see, beyond the causal rule.
//!
//! Notation: `p` is the absolute position of a query row, `j` a key position; `j <= p` always holds.
//! The first three sparse patterns and their names follow SparseAccelerate (arXiv 2412.06198), whose
//! shapes follow MInference (arXiv 2407.02490). Triangular is exact per element; the other two are
//! chosen from the input (see [`crate::select`]), and here carry the budgets of that choice.

use serde::{Deserialize, Serialize};

use crate::{error::AttentionError, index::QUERY_TILE};

/// A pattern and its parameters. Serialised as `{"kind": "triangular", "sink": 64, ...}`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Pattern {
    /// Every key up to the row itself.
    Dense,
    /// Sinks, a sliding window, and dense last rows.
    Triangular(Triangular),
    /// Vertical columns and slash-shaped intervals, chosen from the input.
    IntervalSlash(IntervalSlash),
    /// Clusters of key blocks per query block, chosen from the input.
    BlockCluster(BlockCluster),
    /// Interval-Slash and Block-Cluster together.
    Hybrid(Dynamic),
    /// For every head the cheapest of the above that keeps the recall floor, else dense.
    Dynamic(Dynamic),
    /// The key blocks that hold most of the mass of a group of query heads, by the mean queries of
    /// a tile and the mean keys of blocks of [`MEAN_BLOCK`](crate::select::MEAN_BLOCK) tokens; sinks and a window
    /// are added. A group is one query head, or all that share a KV head ([`Granularity`](crate::select::Granularity)).
    /// `error` is what the outputs of sampled rows may be off by, `recall` the share of the mass that a choice begins with. It
    /// competes with no other pattern, and knows no correction: all heads have it.
    GroupBlocks,
    /// Random key blocks of a given density, for measuring times without a selection.
    FixedBlocks(FixedBlocks),
    /// An index made by hand or by a selector, see [`crate::AttentionPlan::with_index`] and
    /// [`crate::AttentionSettings::selector`]: recorded in decisions, refused in settings.
    Index,
}

/// `M(p) = { j <= p : j < sink  or  p - j < window }`, and all `j <= p` for the last `last` rows
/// of the prompt (without that clause retrieval at the end of the prompt collapses).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Triangular {
    /// Tokens at the start that every row sees.
    pub sink: usize,
    /// Latest tokens, the row itself included, that every row sees. At least 1.
    pub window: usize,
    /// Rows at the end of the prompt that see everything.
    pub last: usize,
}

impl Default for Triangular {
    fn default() -> Self {
        Self {
            sink: 256,
            window: 1024,
            last: 128,
        }
    }
}

/// `M(p) = { j <= p : j in V  or  p - j in D }` with the column set `V` and the offset set `D` taken
/// from the attention of probe rows; slashes are widened to key ranges. Sinks and a window are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IntervalSlash {
    /// Most columns kept, `|V|`.
    pub columns: usize,
    /// Most slashes kept, each of 16 neighbouring offsets.
    pub slashes: usize,
}

impl Default for IntervalSlash {
    fn default() -> Self {
        Self {
            columns: 1024,
            slashes: 256,
        }
    }
}

/// `M(p) = { j <= p : block(j) in T(block(p)) }` with `T` taken from pooled scores, on square blocks of
/// [`BLOCK`](crate::select::BLOCK) tokens. Sinks and a window are added.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BlockCluster {
    /// Keep blocks whose score is at least `alpha` times the query block's largest (FlashPrefill, arXiv
    /// 2603.06199); 0 keeps as many of the best as the recall floor needs.
    pub alpha: f32,
}

/// Which patterns a head may choose among, and their budgets.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dynamic {
    /// Budgets of Interval-Slash.
    pub interval_slash: IntervalSlash,
    /// Rule of Block-Cluster.
    pub block_cluster: BlockCluster,
    /// True makes the union of Interval-Slash and Block-Cluster a choice too.
    pub hybrid: bool,
}

impl Default for Dynamic {
    fn default() -> Self {
        Self {
            interval_slash: IntervalSlash::default(),
            block_cluster: BlockCluster::default(),
            hybrid: true,
        }
    }
}

/// `M(p) = { j <= p : block(j) in S(head, block(p)) }` with a random `S` that depends on nothing but
/// the seed: the diagonal block, the first block, and as many others as come nearest to `density`.
///
/// It sees no query and no key, so its answers mean nothing. It is there to time attention at the
/// density that a selector reaches on trained weights where only random weights can be had.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FixedBlocks {
    /// Heads with a choice of their own: the KV heads, a divisor of them, or the query heads.
    pub heads: usize,
    /// Tokens of a (square) block, a multiple of [`QUERY_TILE`](crate::index::QUERY_TILE).
    pub block: usize,
    /// Kept causal pairs over all causal pairs of every query block, 0 to 1.
    pub density: f64,
    /// Seed of the choice.
    pub seed: u64,
}

impl Pattern {
    /// The pattern's name as written in configuration files.
    pub fn name(&self) -> &'static str {
        match self {
            Pattern::Dense => "dense",
            Pattern::Triangular(_) => "triangular",
            Pattern::IntervalSlash(_) => "interval-slash",
            Pattern::BlockCluster(_) => "block-cluster",
            Pattern::Hybrid(_) => "hybrid",
            Pattern::Dynamic(_) => "dynamic",
            Pattern::GroupBlocks => "group-blocks",
            Pattern::FixedBlocks(_) => "fixed-blocks",
            Pattern::Index => "index",
        }
    }

    /// Tells whether heads choose their keys from the input, on the device.
    pub fn selects(&self) -> bool {
        matches!(
            self,
            Pattern::IntervalSlash(_)
                | Pattern::BlockCluster(_)
                | Pattern::Hybrid(_)
                | Pattern::Dynamic(_)
                | Pattern::GroupBlocks
        )
    }

    /// Checks the parameters.
    ///
    /// # Errors
    /// [`AttentionError::Setting`] with the field, its value and its range.
    pub fn validate(&self) -> Result<(), AttentionError> {
        match self {
            Pattern::Dense | Pattern::GroupBlocks => Ok(()),
            Pattern::Triangular(t) => at_least_one("window", t.window),
            Pattern::IntervalSlash(s) => s.validate(),
            Pattern::BlockCluster(b) => b.validate(),
            Pattern::Hybrid(d) | Pattern::Dynamic(d) => {
                d.interval_slash.validate()?;
                d.block_cluster.validate()
            }
            Pattern::FixedBlocks(f) => {
                at_least_one("heads", f.heads)?;
                if f.block == 0 || !f.block.is_multiple_of(QUERY_TILE) {
                    let limit = format!("a multiple of {QUERY_TILE}");
                    return Err(setting("block", f.block.to_string(), &limit));
                }
                if f.density.is_finite() && (0.0..=1.0).contains(&f.density) {
                    return Ok(());
                }
                Err(setting("density", f.density.to_string(), "between 0 and 1"))
            }
            Pattern::Index => Err(AttentionError::Setting {
                op: "pattern",
                field: "kind",
                got: "index".into(),
                limit: "a pattern that settings can build".into(),
                hint: "make the plan with `AttentionPlan::with_index`",
            }),
        }
    }
}

/// Most columns or slashes of a head; they are listed for every query tile.
const MOST_LISTED: usize = 65_536;

impl IntervalSlash {
    fn validate(&self) -> Result<(), AttentionError> {
        for (field, got) in [("columns", self.columns), ("slashes", self.slashes)] {
            if got > MOST_LISTED {
                let limit = format!("at most {MOST_LISTED}");
                return Err(setting(field, got.to_string(), &limit));
            }
        }
        Ok(())
    }
}

impl BlockCluster {
    fn validate(&self) -> Result<(), AttentionError> {
        if self.alpha.is_finite() && (0.0..=1.0).contains(&self.alpha) {
            return Ok(());
        }
        Err(setting("alpha", self.alpha.to_string(), "between 0 and 1"))
    }
}

fn at_least_one(field: &'static str, got: usize) -> Result<(), AttentionError> {
    if got == 0 {
        return Err(setting(field, got.to_string(), "at least 1"));
    }
    Ok(())
}

fn setting(field: &'static str, got: String, limit: &str) -> AttentionError {
    AttentionError::Setting {
        op: "pattern",
        field,
        got,
        limit: limit.to_string(),
        hint: "a row must always see at least its own key; use `dense` for no sparsity",
    }
}
