//! Memory of one measurement.

use sparse_accelerate_engine::{
    Loaded, MeasuredMemory, MemoryReport,
    memory::{self, StageMemory},
};
use sparse_accelerate_report::record::MemoryUse;

/// Begins a new peak: gives back what the devices' pools hold and nobody uses.
pub(super) fn begin(model: &Loaded) {
    model.cleanup();
    memory::reset_peak();
}

/// Weights, cache and the rest of the peak since [`begin`], on all devices; the plan's where nothing is
/// measured.
///
/// A device whose pools could not be emptied reports its peak since the program began, so lengths are
/// best measured ascending.
pub(super) fn memory_use(report: &MemoryReport) -> MemoryUse {
    let plan = &report.planned;
    of(plan.weights, plan.cache, plan.workspace, &report.measured)
}

/// The same of one stage.
pub(super) fn stage(plan: &StageMemory, measured: &MeasuredMemory) -> MemoryUse {
    let workspace = plan.workspace.total();
    of(plan.weights.total(), plan.cache, workspace, measured)
}

fn of(weights: u64, cache: u64, workspace: u64, measured: &MeasuredMemory) -> MemoryUse {
    let known = weights.saturating_add(cache);
    let peak = measured.bytes;
    MemoryUse {
        weights,
        cache,
        workspace: peak.map_or(workspace, |peak| peak.saturating_sub(known)),
        measured: peak.is_some(),
    }
}
