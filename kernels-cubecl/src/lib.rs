//! Device code of sparse-accelerate, and the host plans that launch it.
//!
//! Written once in CubeCL; the runtime (CUDA, WGSL, SPIR-V, Metal) is the binary's choice. This crate
//! knows nothing of Burn. A launch reports no error, so [`attend::prepare`] checks a problem against
//! the device first and says why it refuses; what it accepted, [`attend::launch`] runs.
//!
//! * [`attend`]: attention over an index, tier by tier.
//! * [`select`]: which keys the heads of a chunk attend to, from probe rows to an index and its check.
//! * [`append`]: writing new keys and values into a cache.
//! * [`rope_append`]: the same from the product of queries, keys and values, rotated on the way.
//! * [`int8`]: keys and values as bytes with a scale per row, and back.
//! * [`rms_norm`], [`swiglu`]: what stands between attention and linear layers.
//!
//! Sizes, layouts and words that the host shares stand in [`sparse_accelerate_contract`].

pub mod append;
pub mod attend;
pub mod int8;
mod layout;
mod refusal;
pub mod rms_norm;
pub mod rope_append;
pub mod select;
pub mod swiglu;
mod table;

pub use layout::supports;
pub use refusal::Refusal;
