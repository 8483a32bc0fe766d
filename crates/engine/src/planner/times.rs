//! Times to first token of a placement.

use serde::Serialize;
use sparse_accelerate_models::Placement;

use super::PlanRequest;
use crate::{
    chunking::Chunking,
    error::EngineError,
    estimate::{StageWork, flow_shop},
};

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
    pub(super) fn new(request: &PlanRequest, placement: &Placement) -> Result<Self, EngineError> {
        // What is left out is left out of the keys that a row sees.
        let window = request.config.common_window().unwrap_or(usize::MAX);
        let density = request.density.at(request.prompt().min(window));
        Ok(Self {
            dense: schedule(request, placement, 1.0)?,
            sparse: schedule(request, placement, density)?,
            density,
        })
    }
}

fn schedule(
    request: &PlanRequest,
    placement: &Placement,
    density: f64,
) -> Result<Schedule, EngineError> {
    let parts = placement.parts().iter();
    let work = |part| StageWork::new(&request.config, part, request.footprint.element);
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
    let all = matrix(&Chunking::Fixed(request.chunk).sizes(0, prompt)?);
    let sequential_s = all.iter().flatten().flatten().sum();
    let mut pipelined = None;
    if stages.len() > 1 {
        let (config, longest) = (&request.config, request.chunk);
        let chunking = Chunking::for_stages(
            config,
            stages.len(),
            prompt,
            longest,
            density,
            density < 1.0,
        );
        let sizes = chunking.sizes(0, prompt)?;
        let [seconds, transfer] = matrix(&sizes);
        pipelined = Some((flow_shop(&seconds, &transfer), sizes.len()));
    }
    Ok(Schedule {
        sequential_s,
        pipelined_s: pipelined.map(|found| found.0),
        chunks: pipelined.map(|found| found.1),
    })
}
