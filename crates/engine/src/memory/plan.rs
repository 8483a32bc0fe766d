//! Planned memory of a run, from the model's configuration alone.

use std::fmt;

use serde::Serialize;
use sparse_accelerate_checkpoint::ModelConfig;
use sparse_accelerate_models::Placement;

use super::{Bytes, StageMemory, Workload, sum};
use crate::error::EngineError;

/// Planned bytes: all stages together, and each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryPlan {
    /// Weights.
    pub weights: u64,
    /// KV cache at full capacity.
    pub cache: u64,
    /// The largest moment of a chunk.
    pub workspace: u64,
    /// Memory of the devices' runtimes.
    pub runtime: u64,
    /// All of them.
    pub total: u64,
    /// Memory of each stage, in the order of the layers.
    pub stages: Vec<StageMemory>,
}

impl MemoryPlan {
    /// The plan of a workload on one device.
    pub fn new(config: &ModelConfig, load: &Workload) -> Self {
        Self::placed(config, &Placement::whole(config.layers), load)
    }

    /// The plan of a workload on a device for every stage.
    pub fn placed(config: &ModelConfig, placement: &Placement, load: &Workload) -> Self {
        let parts = placement.parts().iter();
        let stages: Vec<StageMemory> = parts
            .map(|part| StageMemory::new(config, part, load))
            .collect();
        let over =
            |what: &dyn Fn(&StageMemory) -> u64| sum(&stages.iter().map(what).collect::<Vec<_>>());
        Self {
            weights: over(&|stage| stage.weights.total()),
            cache: over(&|stage| stage.cache),
            workspace: over(&|stage| stage.workspace.total()),
            runtime: over(&|stage| stage.runtime),
            total: over(&StageMemory::total),
            stages,
        }
    }

    /// Refuses a plan of one device that is larger than what the device has. A device that does not tell
    /// (`available` is `None`) is not refused.
    ///
    /// # Errors
    /// [`EngineError::Memory`] with the plan in parts.
    pub fn check(&self, available: Option<u64>, device: &str) -> Result<(), EngineError> {
        match available {
            Some(available) if self.total > available => Err(EngineError::Memory {
                plan: Box::new(self.clone()),
                available,
                device: device.to_string(),
            }),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (weights {}, KV cache {}, workspace {}",
            Bytes(self.total),
            Bytes(self.weights),
            Bytes(self.cache),
            Bytes(self.workspace)
        )?;
        if self.runtime > 0 {
            write!(f, ", runtime {}", Bytes(self.runtime))?;
        }
        f.write_str(")")
    }
}
