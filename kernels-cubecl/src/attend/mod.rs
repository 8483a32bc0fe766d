//! Attention of query tiles over the key ranges and columns of an index.
//!
//! `out[b,h,i] = sum_j exp(scale q.k_j - lse) v_j` over the keys `j` that row `i` sees,
//! `lse = log sum_j exp(scale q.k_j)`; query head `h` reads KV head `h / (Hq / Hk)`.
//!
//! A [`Tier`] is a way to compute it. Two need no feature of the device: `unit` for many query rows,
//! `decode` for a few. A matrix-unit tier joins by a variant of [`Tier`], a blueprint and a kernel
//! beside them, and a line in [`prepare`]; arguments and index stay the same.

mod decode;
mod launch;
mod plan;
mod unit;

pub use decode::DecodeBlueprint;
pub use launch::{Tensors, launch};
pub use plan::{IndexShape, Plan, Problem, Tier, prepare};
pub use unit::UnitBlueprint;

/// Query positions per row of the index.
pub const QUERY_TILE: usize = 64;
