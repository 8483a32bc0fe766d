//! Dynamic selection: every head chooses its keys from the input, on the device.
//!
//! Per layer and chunk, with no look at the host: probe rows give each head's attention by column and by
//! slash, pooled keys give it by block; the cheapest pattern (Triangular, Interval-Slash, Block-Cluster,
//! their union) that keeps the recall floor is indexed, otherwise the head is dense. Afterwards the
//! probe rows' log-sum-exp says what was kept, `recall = exp(LSE_sparse - LSE_dense)` (Qwen2.5-1M, arXiv
//! 2501.15383, 2.4), and a head below the floor is computed again, densely.

mod bands;
#[cfg(feature = "flex")]
#[doc(hidden)]
pub mod cpu;
mod heads;
#[doc(hidden)]
pub mod layout;
mod options;
mod plan;
mod pooled;
mod pooled_layers;
mod preset;
mod record;
mod rules;
mod run;
mod settings;
#[doc(hidden)]
pub mod shape;

pub use heads::HeadPatterns;
use layout::{ListLayout, Rules, TableLayout};
pub use options::SelectOptions;
pub(crate) use plan::{LayerSelection, SelectionPlan};
pub use pooled::PooledKeys;
pub(crate) use pooled_layers::PooledLayers;
pub use preset::Preset;
pub use record::{Choice, HeadRecord, SelectionRecord, Why};
use rules::LayerRules;
pub(crate) use run::attend_selected_checked;
pub use run::{Selected, attend_selected};
pub(crate) use settings::SECOND_ORDER_CAP;
pub use settings::{Correction, CostModel, Granularity, Selection};
use shape::Shape;

/// Tokens of a key block and of a query block of the selection.
pub const BLOCK: usize = 128;
/// Fewest new rows of a chunk that select; shorter chunks are dense.
pub const LEAST_ROWS: usize = BLOCK;
/// Tokens to which ranges are aligned; offsets of one slash.
pub const GRANULE: usize = crate::index::RANGE_ALIGN;
/// Probe rows of a sequence: half are its last rows, half are spread over the chunk.
pub const PROBES: usize = 128;
/// Words of an index head's rules.
pub const RULE_WORDS: usize = 8;
/// Words of an index head's report on the device.
pub const REPORT_WORDS: usize = 16;
