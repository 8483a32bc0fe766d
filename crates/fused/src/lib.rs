#![doc = include_str!("../README.md")]

mod error;
mod ops;
mod passes;

pub use error::FusedError;
pub use ops::FusedOps;
pub use passes::{rms_norm, swiglu};
