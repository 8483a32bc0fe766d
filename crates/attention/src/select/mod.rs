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
mod options;
mod plan;
mod pooled;
mod pooled_layers;
mod preset;
mod record;
mod rules;
mod run;
mod selector;
mod settings;

pub use heads::HeadPatterns;
pub(crate) use options::SelectOptions;
pub(crate) use plan::{LayerSelection, SelectionPlan};
pub use pooled::PooledKeys;
pub(crate) use pooled_layers::PooledLayers;
pub use preset::Preset;
pub use record::{HeadRecord, SelectionRecord};
use rules::LayerRules;
pub(crate) use run::attend_selected_checked;
pub use run::{Selected, attend_selected};
pub use selector::{IndexSelector, SharedSelector};
pub use settings::{Granularity, Selection};
pub use sparse_accelerate_contract::group::MEAN_BLOCK;
pub use sparse_accelerate_contract::{
    BLOCK, Choice, Correction, GRANULE, LEAST_ROWS, PROBES, Prices, Thresholds, Why,
};
