#![doc = include_str!("../README.md")]

#[cfg(feature = "cublaslt")]
mod cublaslt;
pub mod diagnostics;
mod error;
mod linear;
mod ops;
mod route;

pub use error::LinearError;
pub use linear::linear;
pub use ops::LinearOps;
pub use route::{Route, Routing, route};
