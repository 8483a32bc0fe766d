//! A plan that fits.

use serde::Serialize;

use super::{PlanDevice, PlanError, PlanRequest, Times};
use crate::{
    memory::{MemoryPlan, StageMemory},
    placement::place,
    sequence::check_length,
};

/// One stage on its device.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlannedStage {
    /// The device.
    pub device: PlanDevice,
    /// Memory of its part of the model.
    pub memory: StageMemory,
    /// Bytes of all of it.
    pub total: u64,
    /// Bytes left; `None` where the device's memory is not known.
    pub free: Option<u64>,
}

/// A model on devices.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// The stages, in the order of the layers.
    pub stages: Vec<PlannedStage>,
    /// All stages together, bytes.
    pub total: u64,
    /// Tokens of prompt and answer together.
    pub context: usize,
    /// The longest context that fits these devices and the model's positions, tokens.
    pub longest: usize,
    /// Memory limits the longest context, not the model's positions.
    pub longest_by_memory: bool,
    /// Predicted times to first token.
    pub times: Times,
}

/// Shares the layers out and checks that every stage fits its device.
///
/// # Errors
/// [`PlanError`]: a context without a prompt or past the model's positions, a split that cannot be had, a
/// stage that does not fit.
pub fn plan(request: &PlanRequest) -> Result<Plan, PlanError> {
    check_length(&request.config, request.prompt(), request.max_tokens)?;
    let load = request.workload();
    let devices = request.stage_devices();
    let placement = place(&request.config, &load, &devices, &request.split)?;
    let memory = MemoryPlan::placed(&request.config, &placement, &load);
    let stage = |(memory, device): (StageMemory, &PlanDevice)| {
        let total = memory.total();
        PlannedStage {
            device: device.clone(),
            total,
            free: device.memory.map(|has| has.saturating_sub(total)),
            memory,
        }
    };
    let stages = memory.stages.into_iter().zip(&request.devices).map(stage);
    let longest = longest(request).unwrap_or(request.context);
    Ok(Plan {
        stages: stages.collect(),
        total: memory.total,
        context: request.context,
        longest,
        longest_by_memory: longest < request.config.max_positions,
        times: Times::new(request, &placement)?,
    })
}

/// Finds the longest context that fits, tokens, up to the model's positions; `None` where not even the shortest
/// fits.
pub fn longest(request: &PlanRequest) -> Option<usize> {
    let fits = |context: usize| {
        let request = PlanRequest {
            context,
            ..request.clone()
        };
        let devices = request.stage_devices();
        place(
            &request.config,
            &request.workload(),
            &devices,
            &request.split,
        )
        .is_ok()
    };
    let (mut low, mut high) = (request.max_tokens + 1, request.config.max_positions);
    if low > high || !fits(low) {
        return None;
    }
    while low < high {
        let middle = (low + high).div_ceil(2);
        match fits(middle) {
            true => low = middle,
            false => high = middle - 1,
        }
    }
    Some(low)
}
