//! Times to first token of a placement.

use serde::Serialize;
use sparse_accelerate_models::Placement;

use super::PlanRequest;
use crate::estimate::{StageWork, equal_time, fixed, flow_shop};

/// Shortest chunks that still fill a GPU, and the most that are worth cutting.
const SHORTEST: usize = 2048;
const MOST: usize = 48;

/// Predicted seconds of a prefill.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Schedule {
    /// One device works at a time.
    pub sequential_s: f64,
    /// Every device works on its own chunk, chunks take equally long; `None` on one device.
    pub pipelined_s: Option<f64>,
    /// Chunks of the pipeline.
    pub chunks: Option<usize>,
}

/// Predicted times to first token.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Times {
    /// All pairs.
    pub dense: Schedule,
    /// Chosen pairs.
    pub sparse: Schedule,
    /// Share of the pairs of the sparse prefill.
    pub density: f64,
}

impl Times {
    pub(super) fn new(request: &PlanRequest, placement: &Placement) -> Self {
        let density = request.density.at(request.prompt());
        Self {
            dense: schedule(request, placement, 1.0),
            sparse: schedule(request, placement, density),
            density,
        }
    }
}

fn schedule(request: &PlanRequest, placement: &Placement, density: f64) -> Schedule {
    let parts = placement.parts().iter();
    let work = |part| StageWork::new(&request.config, part, request.element);
    let stages: Vec<_> = parts.map(work).zip(&request.devices).collect();
    let prompt = request.prompt();
    // Seconds and transfers of every stage and chunk.
    let matrix = |sizes: &[usize]| -> [Vec<Vec<f64>>; 2] {
        let by_chunk = |of: &dyn Fn(usize, usize) -> f64| {
            let mut before = 0;
            let chunks = sizes.iter().map(|&rows| {
                let value = of(before, rows);
                before += rows;
                value
            });
            chunks.collect::<Vec<_>>()
        };
        let seconds = stages.iter().map(|(work, device)| {
            by_chunk(&|before, rows| work.seconds(&device.rates, before, rows, density))
        });
        let transfer = stages
            .iter()
            .map(|(work, _)| by_chunk(&|_, rows| work.transfer(rows)));
        [seconds.collect(), transfer.collect()]
    };
    let all = matrix(&fixed(prompt, request.chunk));
    let sequential_s = all.iter().flatten().flatten().sum();
    let pipelined = (stages.len() > 1).then(|| {
        let chunks = prompt.div_ceil(SHORTEST.min(request.chunk)).clamp(1, MOST);
        let cost = |tokens| {
            let of = stages.iter();
            of.map(|(work, device)| work.seconds(&device.rates, 0, tokens, density))
                .sum()
        };
        let sizes = equal_time(prompt, chunks, request.chunk, cost);
        let [seconds, transfer] = matrix(&sizes);
        (flow_shop(&seconds, &transfer), sizes.len())
    });
    Schedule {
        sequential_s,
        pipelined_s: pipelined.map(|found| found.0),
        chunks: pipelined.map(|found| found.1),
    }
}
