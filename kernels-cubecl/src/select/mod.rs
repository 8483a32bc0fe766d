//! Dynamic selection: which keys the rows of a chunk attend to, decided and indexed on the device.
//!
//! Nothing here looks at the host, and equal inputs give equal bits: partial sums that meet in any order
//! are integers. The stages, each a launch or two, in the order in which they run:
//!
//! | stage | reads | writes |
//! | --- | --- | --- |
//! | `pool` | keys, values | per key block: mean key, variance of the keys, mean value |
//! | `probe` | probe rows of the queries, keys | their log-sum-exp; attention by column and by slash |
//! | `cut_columns` | sums by column and slash | kept columns and slashes; the mass they cover |
//! | `score` | sampled queries, pooled keys | share of every key block, per query head and query block |
//! | `cut_blocks` | shares, covered mass | kept blocks as bit masks |
//! | `choose` | covered mass, counts, costs | a pattern for every index head |
//! | `build` | all of the choice | the index, as the attention kernels read it |
//! | `correct` | output, pooled keys and values | output with the mass of what was left out |
//! | `check` | log-sum-exp of the result and of the probes | measured recall; heads that must be dense |
//!
//! Under [`Visible::Window`] keys before a row's first are no keys to any stage: the probes' softmax is over
//! visible keys, so covered mass and recall are shares of those; no block, slash, column or sink that all
//! rows of a tile have lost is kept; prices and density count visible pairs. Kernels of selections
//! without a window are compiled as if there were none.

pub mod build;
pub mod check;
pub mod choose;
pub mod correct;
pub mod cut_blocks;
pub mod cut_columns;
mod fixed;
pub mod group;
pub mod index;
mod pack;
pub mod pool;
pub mod probe;
mod product;
mod scan;
pub mod score;

use cubecl::{prelude::*, server::Handle};

pub use sparse_accelerate_contract::{
    BLOCK, Choice, GRANULE, ListLayout, PROBES, Prices, REPORT_WORDS, RULE_WORDS, Report, Rules,
    Shape, TableLayout, Thresholds, Visible, Why,
};

/// A tensor that several launches of a stage read.
#[derive(Debug, Clone)]
pub struct View {
    /// Its memory.
    pub handle: Handle,
    /// Its shape.
    pub shape: [usize; 4],
    /// Elements from one entry to the next of every dimension.
    pub strides: [usize; 4],
}

impl View {
    #[allow(unsafe_code)]
    fn arg(&self) -> TensorArg {
        // SAFETY: whoever made the view promises that the memory holds it.
        unsafe {
            TensorArg::from_raw_parts(self.handle.clone(), self.strides.into(), self.shape.into())
        }
    }
}
