//! Attention of query tiles over the key ranges and columns of an index.
//!
//! `out[b,h,i] = sum_j exp(scale q.k_j - lse) v_j` over the keys `j` that row `i` sees,
//! `lse = log sum_j exp(scale q.k_j)`; query head `h` reads KV head `h / (Hq / Hk)`. The row at absolute
//! position `p` sees at most the keys up to `p`, or of those the last `W` under [`Visible::Window`].
//!
//! A [`Tier`] is a way to compute it. `unit` needs no feature of the device; `mma` needs matrix units
//! with operands in registers, `cmma` any others; `split_k` is for few query rows and many keys, and runs everywhere. Another joins by a
//! variant of [`Tier`], a blueprint and a kernel beside them, and a line in the plan; arguments and index
//! stay.
//! [`prepare`] takes the first that fits a device; [`tune::prepare`] may measure the first few.

mod cmma;
mod launch;
pub(crate) mod mma;
pub(crate) mod plan;
mod split_k;
pub mod tune;
mod unit;

pub use cmma::{CmmaBlueprint, Fragment};
pub use launch::{Tensors, launch};
pub use mma::{Instruction, MmaBlueprint};
pub use plan::{IndexShape, Plan, Problem, Tier, candidates, prepare};
pub use sparse_accelerate_contract::{QUERY_TILE, Stored, Visible};
pub use split_k::SplitKBlueprint;
pub use unit::UnitBlueprint;
