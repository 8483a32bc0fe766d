//! RMSNorm and SwiGLU in one pass over memory each.

mod error;
mod ops;
mod passes;

pub use error::FusedError;
pub use ops::FusedOps;
pub use passes::{rms_norm, swiglu};
