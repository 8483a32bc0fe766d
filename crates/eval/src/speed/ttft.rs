//! Time to first token: the prefill of a prompt until its logits are on the host.
//!
//! The first run compiles kernels, tunes products and fills pools; it is reported apart. A new cache is
//! allocated for every measurement and used by all its runs, as a server would.

use sparse_accelerate_engine::{Loaded, MemoryReport, PrefillProgress, contained};
use sparse_accelerate_report::record::{StageSummary, TtftRow};

use super::{Case, SpeedError, median, memory};

/// How often and in which pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TtftSettings {
    /// Prompt tokens computed at a time.
    pub chunk: usize,
    /// Timed runs, at least 1.
    pub runs: usize,
}

/// A row, and the hidden state it is compared by.
#[derive(Debug, Clone)]
pub struct Measured {
    /// The row.
    pub row: TtftRow,
    /// Hidden state of the last prompt token, `[hidden]`.
    pub last_hidden: Vec<f32>,
}

/// Measures one attention on one prompt. `dense` is the hidden state that dense gave; `progress` is
/// told the run, from 0, and how far it is.
///
/// # Errors
/// No runs, whatever a prefill refuses, a device that gave up.
pub fn ttft(
    model: &Loaded,
    case: &Case,
    ids: &[u32],
    settings: TtftSettings,
    dense: Option<&[f32]>,
    progress: &mut dyn FnMut(usize, PrefillProgress),
) -> Result<Measured, SpeedError> {
    if settings.runs == 0 {
        return Err(SpeedError::Nothing { field: "runs" });
    }
    contained("prefill", || {
        memory::begin(model);
        let mut session = model.sequence(ids.len())?;
        let chunking = model.chunking(ids.len(), settings.chunk, &case.settings);
        let mut run =
            |run: usize| session.prefill(ids, chunking, &case.settings, &mut |p| progress(run, p));
        let first = run(0)?;
        let mut runs = Vec::with_capacity(settings.runs);
        for at in 1..=settings.runs {
            let prefill = run(at)?;
            runs.push((prefill.seconds, prefill.busy_s));
        }
        let runs_s: Vec<f64> = runs.iter().map(|(seconds, _)| *seconds).collect();
        let ttft_s = median(&runs_s);
        // The run that took the median, or the nearest to it.
        let nearest = runs.iter().min_by(|a, b| {
            let apart = |run: &(f64, _)| (run.0 - ttft_s).abs();
            apart(a).total_cmp(&apart(b))
        });
        let busy_s = nearest.map_or(&[][..], |(_, busy_s)| busy_s);
        let report = session.memory(chunking, &case.settings)?;
        let compared = dense.filter(|_| !case.is_dense());
        let row = TtftRow {
            attention: case.name.clone(),
            length: ids.len(),
            ttft_s,
            runs_s,
            first_s: first.seconds,
            density: first.density,
            forced: case.forced,
            error: compared.map(|dense| distance(&first.last_hidden, dense)),
            memory: memory::memory_use(&report),
            chunks: first.decisions.len(),
            stages: stages(model, &report, busy_s),
        };
        Ok(Measured {
            row,
            last_hidden: first.last_hidden,
        })
    })
}

/// Summaries of a pipeline's stages; empty for one device.
fn stages(model: &Loaded, report: &MemoryReport, busy_s: &[f64]) -> Vec<StageSummary> {
    let Loaded::Staged(pipeline) = model else {
        return Vec::new();
    };
    let planned = report.planned.stages.iter().zip(&report.stages);
    let named = pipeline.devices().iter().zip(busy_s).zip(planned);
    let stages = named.map(|((device, busy_s), (planned, measured))| StageSummary {
        device: format!("{device:?}"),
        layers: planned.layers.len(),
        busy_s: *busy_s,
        memory: memory::stage(planned, measured),
    });
    stages.collect()
}

/// Relative L2 distance of `got` to `exact`.
fn distance(got: &[f32], exact: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let pairs = got.iter().zip(exact);
    let error: f64 = pairs
        .map(|(g, e)| square(f64::from(*g) - f64::from(*e)))
        .sum();
    let size: f64 = exact.iter().map(|e| square(f64::from(*e))).sum();
    (error / size).sqrt()
}
