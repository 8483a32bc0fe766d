//! Memory of a run: planned before loading, measured after.
//!
//! The plan is one [`StageMemory`] a device: weights, KV cache, the largest moment of one prefill chunk, and
//! what the runtime takes beside CubeCL's pools. Every part follows from shapes that the model, the cache and
//! the selection allocate; what follows from none is a constant with its reason. Measured is the peak of
//! the whole process on the CPU, or of CubeCL's pools on a GPU, which leave the runtime out.

mod bytes;
mod measure;
mod plan;
mod report;
mod selection;
mod stage;
mod weights;
mod workload;
mod workspace;

pub use bytes::{Bytes, SizeError};
pub use measure::{MeasuredMemory, give_back, is_pooled, measure, reset_peak, system_available};
pub use plan::MemoryPlan;
pub use report::MemoryReport;
pub use stage::{RUNTIME, StageMemory};
pub use weights::Weights;
pub(crate) use weights::matrices;
pub use workload::{Choosing, Footprint, Workload};
pub use workspace::Workspace;

#[cfg(test)]
pub(crate) mod tests;

/// A product of sizes; saturates, as a plan that large fits nowhere.
pub(crate) fn product(factors: &[usize]) -> u64 {
    factors
        .iter()
        .fold(1u64, |acc, n| acc.saturating_mul(*n as u64))
}

/// A sum of bytes; saturates.
pub(crate) fn sum(parts: &[u64]) -> u64 {
    parts.iter().fold(0u64, |acc, n| acc.saturating_add(*n))
}
