//! The baselines and their parameters, with the values their authors publish as defaults.

use serde::{Deserialize, Serialize};

use burn::tensor::Tensor;
use sparse_accelerate::{
    AttentionError, IndexSelector, SharedSelector, Span,
    index::{QUERY_TILE, TileIndex},
};

use crate::{OP, index};

/// A published selector. Serialised as `{"kind": "xattention", "stride": 16, "threshold": 0.9}`; fields
/// left out have their defaults. [`Baseline::parse`] reads `xattention:stride=16:threshold=0.9`.
///
/// Notation: `p` is a row's absolute position, `j` a key position, `j <= p`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", deny_unknown_fields)]
pub enum Baseline {
    /// `j < sink or p - j < window`. StreamingLLM (arXiv 2309.17453), as MInference's `a_shape`.
    #[serde(rename = "a-shape")]
    AShape {
        /// Tokens at the start that every row sees.
        #[serde(default = "default::sink")]
        sink: usize,
        /// Latest tokens, the row itself included, that every row sees. At least 1.
        #[serde(default = "default::window")]
        window: usize,
    },
    /// A-shape with dense last rows. MInference's `tri_shape`.
    #[serde(rename = "tri-shape")]
    TriShape {
        /// As in A-shape.
        #[serde(default = "default::sink")]
        sink: usize,
        /// As in A-shape.
        #[serde(default = "default::window")]
        window: usize,
        /// Rows at the end of the prompt that see everything.
        #[serde(default = "default::tri_last")]
        last: usize,
    },
    /// Columns and diagonals of largest attention of the chunk's last 64 rows (vertical-slash).
    /// MInference (arXiv 2407.02490); the default is that of a head its files do not list.
    #[serde(rename = "minference")]
    MInference {
        /// Columns kept, the first 30 among them; at least 30.
        #[serde(default = "default::vertical")]
        vertical: usize,
        /// Offsets kept, the nearest 100 among them; at least 50.
        #[serde(default = "default::slash")]
        slash: usize,
    },
    /// Block columns and block diagonals that cover `gamma` of the last 128 rows' attention, and pooled
    /// blocks for heads whose pooled scores agree with it. FlexPrefill (arXiv 2502.20766).
    #[serde(rename = "flexprefill")]
    FlexPrefill {
        /// Share of attention to cover, above 0 and at most 1.
        #[serde(default = "default::gamma")]
        gamma: f64,
        /// Square root of the Jensen-Shannon divergence below which a head counts as query-aware.
        #[serde(default = "default::tau")]
        tau: f64,
        /// Fewest tokens of columns and of diagonals. At least 1.
        #[serde(default = "default::min_budget")]
        min_budget: usize,
    },
    /// Blocks that cover `threshold` of a row of antidiagonal scores. XAttention (arXiv 2503.16428).
    #[serde(rename = "xattention")]
    XAttention {
        /// Tokens of an antidiagonal; a power of two, at most 64.
        #[serde(default = "default::stride")]
        stride: usize,
        /// Share of the scores to cover, above 0 and at most 1.
        #[serde(default = "default::threshold")]
        threshold: f64,
    },
    /// Blocks whose energy against mean keys is at least `alpha` of the row's largest, per query head.
    /// FlashPrefill (arXiv 2603.06199); the default is its value for Llama-3.1-8B.
    #[serde(rename = "flashprefill-v1")]
    FlashPrefillV1 {
        /// Share of the largest energy, 0 to 1; higher is sparser.
        #[serde(default = "default::alpha_v1")]
        alpha: f64,
        /// Blocks of rows at the end of the prompt that see everything.
        #[serde(default = "default::last_blocks")]
        last_blocks: usize,
    },
    /// The same over all query heads of a KV head at once. FlashPrefill V2 (arXiv 2608.19758), whose
    /// correction for dropped blocks is no part of the selection and not done here.
    #[serde(rename = "flashprefill-v2")]
    FlashPrefillV2 {
        /// As in V1.
        #[serde(default = "default::alpha_v2")]
        alpha: f64,
        /// As in V1.
        #[serde(default = "default::last_blocks")]
        last_blocks: usize,
    },
    /// Dense layers up to `first_layer`, then A-shape with dense last rows. TriangleMix
    /// (arXiv 2507.21526).
    #[serde(rename = "trianglemix")]
    TriangleMix {
        /// First sparse layer, counted from 0; the default is half of 32.
        #[serde(default = "default::first_layer")]
        first_layer: usize,
        /// As in A-shape.
        #[serde(default = "default::mix_sink")]
        sink: usize,
        /// As in A-shape.
        #[serde(default = "default::mix_window")]
        window: usize,
        /// As in Tri-shape.
        #[serde(default = "default::mix_last")]
        last: usize,
    },
    /// Blocks of 64 keys that cover `mass` of the attention of pooled rows and keys. With 64 `parts` and 64
    /// `means` nothing is pooled, and what is kept is the least that there can be for that share.
    #[serde(rename = "pooled")]
    Pooled {
        /// Equal parts of 64 rows, each with a mean query; a power of two, at most 64.
        #[serde(default = "default::parts")]
        parts: usize,
        /// Equal parts of 64 keys, each with a mean key; a power of two, at most 64.
        #[serde(default = "default::means")]
        means: usize,
        /// Share of the attention to cover, above 0 and at most 1.
        #[serde(default = "default::mass")]
        mass: f64,
        /// As in A-shape.
        #[serde(default = "default::sink")]
        sink: usize,
        /// As in A-shape.
        #[serde(default = "default::mix_window")]
        window: usize,
        /// 1: the query heads of a KV head choose together; 0: each alone.
        #[serde(default = "default::together")]
        together: usize,
    },
}

/// Published defaults, one function each because serde asks for functions.
pub(crate) mod default {
    macro_rules! values {
        ($($name:ident: $kind:ty = $value:expr;)*) => {
            $(pub(crate) const fn $name() -> $kind { $value })*
        };
    }
    values! {
        sink: usize = 128;
        window: usize = 3968;
        tri_last: usize = 100;
        vertical: usize = 1000;
        slash: usize = 6096;
        gamma: f64 = 0.9;
        tau: f64 = 0.1;
        min_budget: usize = 1024;
        stride: usize = 16;
        threshold: f64 = 0.9;
        alpha_v1: f64 = 0.18;
        alpha_v2: f64 = 0.1;
        last_blocks: usize = 2;
        first_layer: usize = 16;
        mix_sink: usize = 8;
        mix_window: usize = 512;
        mix_last: usize = 128;
        parts: usize = 64;
        means: usize = 64;
        mass: f64 = 0.9;
        together: usize = 1;
    }
}

impl Baseline {
    /// Every baseline with its defaults.
    pub fn all() -> [Self; 9] {
        [
            Baseline::AShape {
                sink: default::sink(),
                window: default::window(),
            },
            Baseline::TriShape {
                sink: default::sink(),
                window: default::window(),
                last: default::tri_last(),
            },
            Baseline::MInference {
                vertical: default::vertical(),
                slash: default::slash(),
            },
            Baseline::FlexPrefill {
                gamma: default::gamma(),
                tau: default::tau(),
                min_budget: default::min_budget(),
            },
            Baseline::XAttention {
                stride: default::stride(),
                threshold: default::threshold(),
            },
            Baseline::FlashPrefillV1 {
                alpha: default::alpha_v1(),
                last_blocks: default::last_blocks(),
            },
            Baseline::FlashPrefillV2 {
                alpha: default::alpha_v2(),
                last_blocks: default::last_blocks(),
            },
            Baseline::TriangleMix {
                first_layer: default::first_layer(),
                sink: default::mix_sink(),
                window: default::mix_window(),
                last: default::mix_last(),
            },
            Baseline::Pooled {
                parts: default::parts(),
                means: default::means(),
                mass: default::mass(),
                sink: default::sink(),
                window: default::mix_window(),
                together: default::together(),
            },
        ]
    }

    /// The name as written in configuration files and read by [`Baseline::parse`].
    pub fn name(&self) -> &'static str {
        match self {
            Baseline::AShape { .. } => "a-shape",
            Baseline::TriShape { .. } => "tri-shape",
            Baseline::MInference { .. } => "minference",
            Baseline::FlexPrefill { .. } => "flexprefill",
            Baseline::XAttention { .. } => "xattention",
            Baseline::FlashPrefillV1 { .. } => "flashprefill-v1",
            Baseline::FlashPrefillV2 { .. } => "flashprefill-v2",
            Baseline::TriangleMix { .. } => "trianglemix",
            Baseline::Pooled { .. } => "pooled",
        }
    }

    /// Checks the parameters.
    ///
    /// # Errors
    /// [`AttentionError::Setting`] with the field, its value and its range.
    pub fn validate(&self) -> Result<(), AttentionError> {
        match *self {
            Baseline::AShape { window, .. }
            | Baseline::TriShape { window, .. }
            | Baseline::TriangleMix { window, .. } => at_least_one("window", window),
            Baseline::MInference { vertical, slash } => {
                at_least_one("vertical", vertical)?;
                at_least_one("slash", slash)
            }
            Baseline::FlexPrefill {
                gamma,
                tau,
                min_budget,
            } => {
                share("gamma", gamma)?;
                if !(tau.is_finite() && tau >= 0.0) {
                    return Err(setting("tau", tau.to_string(), "0 or more"));
                }
                at_least_one("min_budget", min_budget)
            }
            Baseline::XAttention { stride, threshold } => {
                divides_a_tile("stride", stride)?;
                share("threshold", threshold)
            }
            Baseline::Pooled {
                parts,
                means,
                mass,
                window,
                together,
                ..
            } => {
                divides_a_tile("parts", parts)?;
                divides_a_tile("means", means)?;
                share("mass", mass)?;
                at_least_one("window", window)?;
                if together > 1 {
                    return Err(setting("together", together.to_string(), "0 or 1"));
                }
                Ok(())
            }
            Baseline::FlashPrefillV1 { alpha, .. } | Baseline::FlashPrefillV2 { alpha, .. } => {
                if alpha.is_finite() && (0.0..=1.0).contains(&alpha) {
                    return Ok(());
                }
                Err(setting("alpha", alpha.to_string(), "between 0 and 1"))
            }
        }
    }
}

/// Its name in settings has every parameter. Rows are those of the chunk that it is asked for: what a method
/// measures on the last rows, it measures on the last rows of every chunk.
impl IndexSelector for Baseline {
    fn name(&self) -> String {
        self.to_string()
    }

    fn index(
        &self,
        layer: usize,
        query: &Tensor<4>,
        key: &Tensor<4>,
        spans: &[Span],
    ) -> Result<Option<TileIndex>, AttentionError> {
        index(self, layer, query, key, spans)
    }

    fn without_last(&self) -> Option<SharedSelector> {
        let mut without = *self;
        match &mut without {
            Baseline::TriShape { last, .. } | Baseline::TriangleMix { last, .. } => *last = 0,
            Baseline::FlashPrefillV1 { last_blocks, .. }
            | Baseline::FlashPrefillV2 { last_blocks, .. } => *last_blocks = 0,
            Baseline::AShape { .. }
            | Baseline::MInference { .. }
            | Baseline::FlexPrefill { .. }
            | Baseline::XAttention { .. }
            | Baseline::Pooled { .. } => return None,
        }
        Some(SharedSelector::new(without))
    }
}

fn at_least_one(field: &'static str, got: usize) -> Result<(), AttentionError> {
    if got == 0 {
        return Err(setting(field, got.to_string(), "at least 1"));
    }
    Ok(())
}

fn divides_a_tile(field: &'static str, got: usize) -> Result<(), AttentionError> {
    if got.is_power_of_two() && got <= QUERY_TILE {
        return Ok(());
    }
    Err(setting(field, got.to_string(), "a power of two up to 64"))
}

fn share(field: &'static str, got: f64) -> Result<(), AttentionError> {
    if got > 0.0 && got <= 1.0 {
        return Ok(());
    }
    Err(setting(field, got.to_string(), "above 0 and at most 1"))
}

fn setting(field: &'static str, got: String, limit: &str) -> AttentionError {
    AttentionError::Setting {
        op: OP,
        field,
        got,
        limit: limit.to_string(),
        hint: "leave it out for the published default",
    }
}
