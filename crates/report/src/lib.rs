//! Run files of `eval` and `bench`: JSON lines that are written as they are measured, read back to go
//! on after an interruption, and turned into tables, plots and pages.
//!
//! Knows nothing of models or devices: what is here can be read without either.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod record;
