//! Device-side readers and writers of what host and kernels share, the words of
//! [`sparse_accelerate_contract`] under their names; and what cubes make of them: which rows they work on,
//! which keys those see, in what order.

mod place;
mod report;
mod rules;
mod span;
mod visible;
mod walk;

use cubecl::prelude::*;
use sparse_accelerate_contract::{ROW_WORDS, SPAN_WORDS};

pub(crate) use place::{Call, CallLaunch, KvRows, Place, Serves, Tiling};
pub(crate) use report::HeadReport;
pub(crate) use rules::HeadRules;
pub(crate) use span::Span;
pub(crate) use visible::{Limits, LimitsLaunch, Rule, Window};
pub(crate) use walk::{Cursor, Items, Step, Walk};

/// Gives the word of an index head's gate, `index` counting the index heads of all sequences: gates follow
/// the `rows` index rows of the table.
#[cube]
pub(crate) fn gate_at(batch: u32, rows: u32, index: u32) -> usize {
    (batch * comptime!(SPAN_WORDS as u32) + rows * comptime!(ROW_WORDS as u32) + index) as usize
}
