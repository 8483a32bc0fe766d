//! Inputs and references of the benchmarks: deterministic queries, keys and
//! values, random block masks, and attention in f64.
//!
//! Every input is a pure function of a 32-bit seed: integer arithmetic modulo 2^32, two lookup
//! tables and single f32 operations in a stated order without fused multiply-add, rounded to bf16
//! (nearest even) last. A program in any language that follows the rules in [`Family`],
//! [`random_block_mask`] and below has the same bits; the tests hold this crate to values of such
//! a program.
//!
//! - `mix(x)`: `x ^= x >> 16; x *= 0x7feb352d; x ^= x >> 15; x *= 0x846ca68b; x ^= x >> 16`.
//! - `bits(stream, i) = mix(mix(i + k1) ^ k2)` with
//!   `k1 = mix(seed + 0x9e3779b9 * (2 * stream + 1))` and `k2 = mix(k1 ^ 0x85ebca6b) + stream`.
//! - `COS[t] = cos(2 pi t / 65536)` and `RAD[t] = sqrt(-2 ln((t + 0.5) / 65536))` for `t` below
//!   65536, computed in f64, rounded once to f32.
//! - `normal(stream, i) = RAD[b >> 16] * COS[b & 0xffff]` with `b = bits(stream, i)`.
//! - Element `[h, s, d]` has the counter `i = (h * 2^17 + s) * 128 + d`, whatever the shape: a
//!   prefix of a longer sequence is the same tensor, and so are the first heads of more.
//!
//! ```
//! use sparse_accelerate_inputs::{Family, Shape, query, random_block_mask};
//!
//! let shape = Shape::new(4, 2, 256); // four query heads share two KV heads, 256 tokens
//! let q = query(1, Family::Structured, shape)?; // [4, 256, 128]
//! assert_eq!(q.len(), 4 * 256 * 128);
//!
//! let mask = random_block_mask(256, 64, 64, 0.5, 4, 7)?;
//! assert_eq!(mask.kept(0, 3).last(), Some(&3)); // the diagonal is always kept
//! # Ok::<(), sparse_accelerate_inputs::InputError>(())
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
mod hash;
mod mask;
pub mod oracle;
mod shape;
mod structured;
mod tables;
mod tensor;
#[cfg(test)]
mod vectors;

pub use error::InputError;
pub use mask::{BlockMask, random_block_mask};
pub use shape::{Family, HEAD_DIM, MAX_HEAD_DIM, MAX_HEADS, MAX_LEN, Shape};
pub use tensor::{key, query, value};
