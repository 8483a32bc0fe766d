//! Plain data that kernels and host agree on, each stated once.
//!
//! The kernels, their CPU implementation, the plans that launch them, the memory planner, tests and benches
//! all read these definitions. The crate holds numbers and their layout alone: it knows neither tensors
//! nor devices, and depends on no other crate of the workspace.
//!
//! | module | holds |
//! | --- | --- |
//! | [`sizes`] | tiles, blocks, granules, probe rows |
//! | [`shape`] | the shape of a selection, one sequence, its probe rows |
//! | [`table`] | the `u32` table that tells attention which keys a query tile sees, and its writer |
//! | [`group`] | the choice by the mass of a group |
//! | [`lists`] | kept columns and slashes of an index head |
//! | [`rules`] | what an index head may choose, as words |
//! | [`refusal`] | the limits of a device that a problem does not keep |
//! | [`report`] | what an index head chose and why, as words |
//! | [`options`] | prices, thresholds, corrections, storage of a cache |
//! | [`visible`] | the keys that a row may see: causal, or a window of them |
//! | [`scratch`] | lengths of every buffer that a selection takes |

pub mod group;
pub mod lists;
pub mod options;
pub mod refusal;
pub mod report;
pub mod rules;
pub mod scratch;
pub mod shape;
pub mod sizes;
pub mod table;
pub mod visible;

pub use lists::ListLayout;
pub use options::{CachePart, Correction, Order, Prices, Stored, Thresholds};
pub use refusal::Refusal;
pub use report::{Choice, REPORT_WORDS, Report, Why};
pub use rules::{RULE_WORDS, Rules};
pub use shape::{Sequence, Shape, probe_row};
pub use sizes::{BLOCK, GRANULE, LEAST_ROWS, PROBE_GROUP, PROBES, QUERY_TILE, RANGE_ALIGN};
pub use table::{IndexRow, RANGE_WORDS, ROW_WORDS, SPAN_WORDS, TableLayout};
pub use visible::Visible;
