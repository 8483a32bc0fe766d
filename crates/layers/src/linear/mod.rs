//! `x Wᵀ` by cuBLASLt on CUDA, by Burn's own product elsewhere.

#[cfg(feature = "cublaslt")]
mod cublaslt;
pub mod diagnostics;
mod error;
mod ops;
mod product;
mod route;

pub use error::LinearError;
pub use ops::LinearOps;
pub use product::linear;
pub use route::{Route, Routing, route};
