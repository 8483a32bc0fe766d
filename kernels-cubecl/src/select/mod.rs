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

pub mod build;
pub mod check;
pub mod choose;
pub mod correct;
pub mod cut_blocks;
pub mod cut_columns;
mod fixed;
pub mod index;
mod lists;
pub mod pool;
pub mod probe;
mod product;
mod scan;
pub mod score;
mod table;

use cubecl::{prelude::*, server::Handle};

pub use lists::ListLayout;
pub use table::TableLayout;

/// Tokens of a key block and of a query block of the selection.
pub const BLOCK: usize = 128;
/// Tokens to which ranges are aligned.
pub const GRANULE: usize = 16;
/// Probe rows of a sequence: half are its last rows, half are spread over the chunk.
pub const PROBES: usize = 128;
/// Words of an index head's rules.
pub const RULE_WORDS: usize = 8;
/// Words of an index head's report.
pub const REPORT_WORDS: usize = 16;

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

/// One selection. Lengths in tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Sequences.
    pub batch: usize,
    /// Query heads.
    pub heads: usize,
    /// KV heads; divides `heads`.
    pub kv_heads: usize,
    /// Heads with a choice of their own: the KV heads or the query heads.
    pub index_heads: usize,
    /// Query rows of the longest sequence.
    pub rows: usize,
    /// Keys of the longest sequence.
    pub keys: usize,
    /// Head dimension, a multiple of 8.
    pub head_dim: usize,
    /// Softmax scale.
    pub scale: f32,
}

impl Shape {
    /// Query blocks per sequence and head.
    pub fn query_blocks(&self) -> usize {
        self.rows.div_ceil(BLOCK)
    }

    /// Index rows per sequence and head.
    pub fn tiles(&self) -> usize {
        self.rows.div_ceil(crate::attend::QUERY_TILE)
    }

    /// Key blocks.
    pub fn key_blocks(&self) -> usize {
        self.keys.div_ceil(BLOCK)
    }

    /// Buckets of slash offsets.
    pub fn slash_buckets(&self) -> usize {
        self.keys.div_ceil(GRANULE)
    }

    /// Query heads that share a choice.
    pub fn sharing(&self) -> usize {
        self.heads / self.index_heads
    }
}
