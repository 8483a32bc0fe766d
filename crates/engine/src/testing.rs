//! Faults on purpose, for tests of what depends on a pipeline. Not part of the API.

pub use crate::pipeline::Fault;
use crate::pipeline::Pipeline;

/// Breaks a stage of a pipeline at its next chunk.
pub fn inject(pipeline: &Pipeline, stage: usize, fault: Fault) {
    pipeline.inject(stage, fault);
}
