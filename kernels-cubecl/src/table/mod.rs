//! Device-side readers and writers of what host and kernels share: the words of
//! [`sparse_accelerate_contract`] under their names.

mod report;
mod rules;
mod span;

use cubecl::prelude::*;
use sparse_accelerate_contract::{ROW_WORDS, SPAN_WORDS};

pub(crate) use report::HeadReport;
pub(crate) use rules::HeadRules;
pub(crate) use span::Span;

/// Gives the word of an index head's gate, `index` counting the index heads of all sequences: gates follow
/// the `rows` index rows of the table.
#[cube]
pub(crate) fn gate_at(batch: u32, rows: u32, index: u32) -> usize {
    (batch * comptime!(SPAN_WORDS as u32) + rows * comptime!(ROW_WORDS as u32) + index) as usize
}
