//! Memory of one measurement.

use burn::tensor::Device;
use sparse_accelerate_engine::{
    Sequence, Session,
    memory::{self, MemoryPlan, Workload},
};
use sparse_accelerate_report::record::MemoryFacts;

/// Begins a new peak: gives back what the device's pools hold and nobody uses.
pub(super) fn begin(device: &Device) {
    device.memory_cleanup();
    memory::reset_peak();
}

/// Weights, cache and the rest of the peak since [`begin`]; the plan's where nothing is measured.
///
/// A device whose pools could not be emptied reports its peak since the program began, so lengths are
/// best measured ascending.
pub(super) fn facts(session: &Session<'_>, chunk: usize) -> MemoryFacts {
    let model = session.model();
    let workload = Workload {
        mlp_rows: model.mlp_rows(),
        gpu: memory::is_pooled(session.device()),
        ..Workload::new(model.dtype().size(), session.capacity(), chunk)
    };
    let plan = MemoryPlan::new(model.config(), &workload);
    let measured = memory::measure(session.device()).bytes;
    let known = plan.weights.saturating_add(plan.cache);
    MemoryFacts {
        weights: plan.weights,
        cache: plan.cache,
        workspace: measured.map_or(plan.workspace, |peak| peak.saturating_sub(known)),
        measured: measured.is_some(),
    }
}
