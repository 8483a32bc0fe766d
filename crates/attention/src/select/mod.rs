//! Dynamic selection: which keys the rows of a chunk attend to, decided from the input.
//!
//! The stages, what they read and what they write, are those of the kernels' `select` module.

#[doc(hidden)]
pub mod cpu;
