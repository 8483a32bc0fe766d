//! Attention of query tiles over the key ranges and columns of an index.
//!
//! `out[b,h,i] = sum_j exp(scale q.k_j - lse) v_j` over the keys `j` that row `i` sees,
//! `lse = log sum_j exp(scale q.k_j)`; query head `h` reads KV head `h / (Hq / Hk)`.
//!
//! A [`Tier`] is a way to compute it that needs certain features. This version has one, which needs
//! none: no plane operations, no matrix units. A matrix-unit tier joins by a variant of [`Tier`], a
//! blueprint and a kernel beside `unit`, and a line in [`prepare`]; arguments and index stay the same.

mod launch;
mod mma;
mod plan;
mod unit;

pub use launch::{Tensors, launch};
pub use mma::MmaBlueprint;
pub use plan::{IndexShape, Plan, Problem, Tier, candidates, prepare};
pub use unit::UnitBlueprint;

/// Query positions per row of the index.
pub const QUERY_TILE: usize = 64;
