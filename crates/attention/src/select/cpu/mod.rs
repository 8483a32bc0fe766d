//! The stages of a selection on the CPU: loops over slices, stage by stage the counterparts of the kernels.
//!
//! Equal inputs give equal bits, whatever the number of threads: work is cut into items by the shape
//! alone, float partial sums meet in a fixed order, and sums that meet in any order are integers. Given
//! equal scores, CPU and kernels agree bit for bit from `cut_columns` to `build`: these stages compute
//! with integers, or with single products of numbers that are exact in f32.

mod build;
mod check;
mod choose;
mod correct;
mod cut_blocks;
mod cut_columns;
mod fixed;
pub mod group;
mod pool;
mod probe;
mod score;
#[cfg(test)]
mod testing;
mod view;

pub use build::{BuildInputs, build};
pub use check::check;
pub use choose::{ChooseInputs, choose};
pub use correct::correct;
pub use cut_blocks::cut_blocks;
pub use cut_columns::cut_columns;
pub use pool::pool;
pub use probe::probe;
pub use score::score;
pub use view::{Pooled, View, ViewMut};
