//! RMSNorm, SwiGLU and GeGLU in one pass over memory each.

mod error;
mod ops;
mod passes;

pub use error::FusedError;
pub use ops::{Activation, FusedOps};
pub use passes::{geglu, rms_norm, swiglu};
