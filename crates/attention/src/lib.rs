// A device of another backend than CubeCL's there is only with `flex`.
#![cfg_attr(not(feature = "flex"), allow(irrefutable_let_patterns))]
// Without a backend the library compiles, and nothing of it can be called.
#![cfg_attr(
    not(any(feature = "flex", feature = "cube")),
    allow(dead_code, unused_variables)
)]
#![doc = include_str!("../README.md")]

mod attend;
mod cache;
pub mod diagnostics;
mod error;
mod heads;
pub mod index;
mod layer_plan;
mod module;
mod ops;
mod parse;
mod pattern;
mod plan;
mod rope;
pub mod select;
mod settings;
mod span;
mod visible;

pub use attend::{HEAD_DIMS, append_kv, attend, attend_with_lse};
pub use cache::{CacheShape, KvCache, KvType};
pub use error::AttentionError;
pub use heads::Heads;
pub use layer_plan::LayerPlan;
pub use module::{Attended, SparseAttention, SparseAttentionConfig};
pub use parse::{Parameter, ParseError};
pub use pattern::{BlockCluster, Dynamic, FixedBlocks, IntervalSlash, Pattern, Triangular};
pub use plan::AttentionPlan;
pub use rope::{rope_append, rotation_table};
pub use select::{
    Choice, HeadPatterns, HeadRecord, IndexSelector, PooledKeys, Preset, Selected, Selection,
    SelectionRecord, SharedSelector, attend_selected,
};
pub use settings::{AttentionMode, AttentionSettings, Decision, Path, Reason};
pub use span::{MAX_KV_LEN, Span};
pub use sparse_accelerate_contract::Refusal;
pub use visible::Visible;
