// A device of another backend than CubeCL's there is only with `flex`.
#![cfg_attr(not(feature = "flex"), allow(irrefutable_let_patterns))]
// Without a backend the library compiles, and nothing of it can be called.
#![cfg_attr(
    not(any(feature = "flex", feature = "cube")),
    allow(dead_code, unused_variables)
)]
#![doc = include_str!("../README.md")]

mod fused;
mod linear;

pub use fused::{Activation, FusedError, FusedOps, geglu, rms_norm, swiglu};
pub use linear::{LinearError, LinearOps, Route, Routing, diagnostics, linear, route};
