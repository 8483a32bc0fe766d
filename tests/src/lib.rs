//! Parts that the contracts in `tests/` share: problems, the f64 oracle, tolerances, backends.
//!
//! The oracle is written from the formula, slow and plain, and knows neither tiles nor indexes: it
//! asks only whether a row sees a key. Everything is deterministic.

pub mod backends;
pub mod int8_rows;
#[cfg(any(feature = "wgpu", feature = "cuda-runtime"))]
pub mod launches;
pub mod models;
pub mod oracle;
pub mod pairs;
pub mod problem;
pub mod selection;
pub mod tolerance;

/// The example in the repository's README is compiled and run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct RepositoryReadme;
