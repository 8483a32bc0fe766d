#![doc = include_str!("../README.md")]

mod fused;
mod linear;

pub use fused::{FusedError, FusedOps, rms_norm, swiglu};
pub use linear::{LinearError, LinearOps, Route, Routing, diagnostics, linear, route};
