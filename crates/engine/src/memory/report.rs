//! Planned and measured memory of one sequence.

use serde::Serialize;

use super::{MeasuredMemory, MemoryPlan};

/// Memory of one sequence, planned and measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryReport {
    /// Bytes expected on the devices.
    pub planned: MemoryPlan,
    /// Peak bytes of all stages.
    pub measured: MeasuredMemory,
    /// Peak bytes of each stage.
    pub stages: Vec<MeasuredMemory>,
}
