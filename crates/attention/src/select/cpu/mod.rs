//! The selection on the CPU: loops over slices, stage by stage the twins of the kernels.
//!
//! Given equal inputs the two agree bit for bit from `cut_columns` on: these stages compute with
//! integers, or with single products of numbers that are exact in f32.

mod build;
mod choose;
mod cut_blocks;
mod cut_columns;
mod fixed;
mod layout;

pub use build::{BuildInputs, build};
pub use choose::{ChooseInputs, Costs, choose};
pub use cut_blocks::cut_blocks;
pub use cut_columns::{Kappa, cut_columns};
pub use layout::{ListLayout, Rules, Shape, TableLayout};

/// Tokens of a key block and of a query block of the selection.
pub const BLOCK: usize = 128;
/// Tokens to which ranges are aligned.
pub const GRANULE: usize = crate::index::RANGE_ALIGN;
/// Probe rows of a sequence: half are its last rows, half are spread over the chunk.
pub const PROBES: usize = 128;
/// Words of an index head's rules.
pub const RULE_WORDS: usize = 8;
/// Words of an index head's report.
pub const REPORT_WORDS: usize = 16;
