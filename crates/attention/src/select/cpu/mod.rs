//! The stages of a selection on the CPU: plain loops over slices with strides.
//!
//! Equal inputs give equal bits, whatever the number of threads: work is cut into items by the shape
//! alone, float partial sums meet in a fixed order, and sums that meet in any order are integers.

mod check;
mod correct;
mod pool;
mod probe;
mod score;
mod shape;
#[cfg(test)]
mod testing;
mod view;

pub use check::check;
pub use correct::{Correction, correct};
pub use pool::pool;
pub use probe::probe;
pub use score::score;
pub use shape::{
    BLOCK, GRANULE, PROBES, REPORT_WORDS, RULE_WORDS, Rule, Sequence, Shape, probe_row,
};
pub use view::{Pooled, View, ViewMut};
