//! Cutting a model into stages.
//!
//! The counts of layers are found by dynamic programming over (devices, layers): first the least cost of the
//! worst stage, then, among all cuts as good, the least share of memory on the fullest device.

use sparse_accelerate_checkpoint::ModelConfig;
use sparse_accelerate_models::{Placement, StagePart};

use super::{LayerCosts, Split, SplitError, error::sum};
use crate::memory::{StageMemory, Workload};

/// A device that a stage may be on.
#[derive(Debug, Clone, PartialEq)]
pub struct StageDevice {
    /// Its name, for messages.
    pub name: String,
    /// Bytes a stage may take; `None` where they are not known, which counts as enough.
    pub memory: Option<u64>,
    /// Costs it computes in a unit of time; above 0. Only ratios count.
    pub speed: f64,
    /// Costs of layers on it.
    pub costs: LayerCosts,
}

/// Cuts a model into one stage a device. What fits is checked for every split.
///
/// # Errors
/// [`SplitError`]: counts that do not suit model and devices, or a stage that does not fit: with a search,
/// that of the cut with the least share of memory on the fullest device.
pub fn place(
    config: &ModelConfig,
    load: &Workload,
    devices: &[StageDevice],
    split: &Split,
) -> Result<Placement, SplitError> {
    let layers = config.layers;
    if devices.is_empty() {
        return Err(SplitError::NoDevices);
    }
    let problem = Problem {
        config,
        load,
        devices,
    };
    let placement = match split {
        Split::Counts(counts) => problem.given(counts)?,
        _ if devices.len() > layers => {
            return Err(SplitError::TooManyDevices {
                devices: devices.len(),
                layers,
            });
        }
        Split::ByMemory => {
            if let Some(device) = devices.iter().find(|device| device.memory.is_none()) {
                return Err(SplitError::UnknownMemory {
                    device: device.name.clone(),
                });
            }
            problem.by(&|stage, part| problem.share(stage, part), &|stage, part| {
                problem.time(stage, part)
            })?
        }
        Split::Auto => problem.by(
            &|stage, part| match problem.share(stage, part) {
                share if share > 1.0 => f64::INFINITY,
                _ => problem.time(stage, part),
            },
            &|stage, part| problem.share(stage, part),
        )?,
    };
    problem.check(&placement)?;
    Ok(placement)
}

/// The cost of a part on the device of a stage.
type Cost<'a> = &'a dyn Fn(usize, &StagePart) -> f64;

struct Problem<'a> {
    config: &'a ModelConfig,
    load: &'a Workload,
    devices: &'a [StageDevice],
}

impl Problem<'_> {
    fn given(&self, counts: &[usize]) -> Result<Placement, SplitError> {
        let (counts, layers) = (counts.to_vec(), self.config.layers);
        if counts.len() != self.devices.len() {
            let devices = self.devices.len();
            return Err(SplitError::Devices { counts, devices });
        }
        if sum(&counts) != layers {
            return Err(SplitError::Layers { counts, layers });
        }
        Ok(Placement::of_counts(&counts)?)
    }

    /// Least `first` on the worst stage, then least `second`. Where `first` is infinite whatever is done,
    /// the least share of memory.
    fn by(&self, first: Cost<'_>, second: Cost<'_>) -> Result<Placement, SplitError> {
        let found = self.least(first).map(|(worst, counts)| {
            let within = |stage: usize, part: &StagePart| match first(stage, part) {
                cost if cost > worst * (1.0 + 1e-9) => f64::INFINITY,
                _ => second(stage, part),
            };
            // `second` may be infinite nowhere that `first` is not.
            self.least(&within).map_or(counts, |(_, better)| better)
        });
        let share = |stage: usize, part: &StagePart| self.share(stage, part);
        let counts = found.or_else(|| Some(self.least(&share)?.1));
        Ok(Placement::of_counts(&counts.unwrap_or_default())?)
    }

    /// The least cost of the worst stage, and the counts that have it; `None` where all are infinite.
    fn least(&self, cost: Cost<'_>) -> Option<(f64, Vec<usize>)> {
        let (layers, last) = (self.config.layers, self.devices.len() - 1);
        // Of the first so many layers on the stages so far.
        let mut best: Vec<Option<(f64, Vec<usize>)>> = vec![None; layers + 1];
        best[0] = Some((0.0, Vec::new()));
        for stage in 0..=last {
            let mut next = vec![None; layers + 1];
            for (from, held) in best.iter().enumerate() {
                let Some((so_far, counts)) = held else {
                    continue;
                };
                for (end, slot) in next.iter_mut().enumerate().skip(from + 1) {
                    let part = StagePart {
                        layers: from..end,
                        input: stage == 0,
                        output: stage == last,
                    };
                    let worst = so_far.max(cost(stage, &part));
                    let better = match slot {
                        Some((held, _)) => worst < *held,
                        None => worst.is_finite(),
                    };
                    if better {
                        let mut counts = counts.clone();
                        counts.push(end - from);
                        *slot = Some((worst, counts));
                    }
                }
            }
            best = next;
        }
        best.pop().flatten()
    }

    fn memory(&self, part: &StagePart) -> StageMemory {
        StageMemory::new(self.config, part, self.load)
    }

    /// Share of its device's memory that a stage takes; 0 where that is not known.
    fn share(&self, stage: usize, part: &StagePart) -> f64 {
        match self.devices[stage].memory {
            Some(memory) => self.memory(part).total() as f64 / memory.max(1) as f64,
            None => 0.0,
        }
    }

    fn time(&self, stage: usize, part: &StagePart) -> f64 {
        self.devices[stage].costs.of(part) / self.devices[stage].speed
    }

    fn check(&self, placement: &Placement) -> Result<(), SplitError> {
        let stages = placement.parts().iter().zip(self.devices).enumerate();
        let over = stages.filter_map(|(stage, (part, device))| {
            let (memory, available) = (self.memory(part), device.memory?);
            let over = memory.total().checked_sub(available).filter(|n| *n > 0)?;
            Some((over, stage, device, available, memory))
        });
        match over.max_by_key(|(over, ..)| *over) {
            None => Ok(()),
            Some((_, stage, device, available, memory)) => Err(SplitError::DoesNotFit {
                stage,
                device: device.name.clone(),
                available,
                memory: Box::new(memory),
            }),
        }
    }
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
