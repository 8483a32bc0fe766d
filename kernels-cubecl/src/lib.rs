//! Device code of sparse-accelerate, and the host plans that launch it.
//!
//! Written once in CubeCL; the runtime (CUDA, WGSL, SPIR-V, Metal) is the binary's choice. This crate
//! knows nothing of Burn. A launch reports no error, so [`attend::prepare`] checks a problem against
//! the device first and says why it refuses; what it accepted, [`attend::launch`] runs.
//!
//! | module | holds |
//! | --- | --- |
//! | [`attend`] | attention over an index, tier by tier, and the choice among tiers |
//! | [`select`] | which keys the rows of a chunk attend to, decided and indexed on the device |
//! | `table` | the words of the table by name; which rows a cube works on, which keys they see, in what order |
//! | `tile` | tiles that attention and its correction share |
//! | [`append`] | writing new keys and values into a cache |
//! | [`rope_append`] | the same from the product of queries, keys and values, rotated on the way |
//! | [`int8`] | keys and values as int8 with a scale per row, and back |
//! | [`rms_norm`], [`glu`] | the passes between attention and linear layers |
//! | `layout` | vector widths, cubes and buffers of kernels on rows |
//! | `refusal` | why a problem will not run on a device |
//!
//! Sizes, layouts and words that the host shares stand in [`sparse_accelerate_contract`].

pub mod append;
pub mod attend;
pub mod glu;
pub mod int8;
mod layout;
mod refusal;
pub mod rms_norm;
pub mod rope_append;
pub mod select;
mod table;
mod tile;

pub use layout::supports;
pub use refusal::Refusal;
