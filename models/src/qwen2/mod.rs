//! Qwen2 and Qwen2.5 (dense; not the mixture-of-experts or vision models).
//!
//! The shared decoder with a bias on the query, key and value projections and none elsewhere.
//! Small sizes tie the embedding to the head. The sliding window of the original configuration is
//! off in every released dense checkpoint; the checkpoint crate decides what to do with one that
//! turns it on.

mod config;

pub(crate) use config::blueprint;
