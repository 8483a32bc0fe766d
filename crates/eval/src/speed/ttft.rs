//! Time to first token: the prefill of a prompt until its logits are on the host.
//!
//! The first run compiles kernels, tunes products and fills pools; it is reported apart. A new cache is
//! allocated for every measurement and used by all its runs, as a server would.

use sparse_accelerate_engine::{PrefillProgress, Sequence, Session, contained};
use sparse_accelerate_models::CausalLm;
use sparse_accelerate_report::record::TtftRow;

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
/// No runs, whatever [`Session::prefill`] refuses, a device that gave up.
pub fn ttft(
    model: &CausalLm,
    case: &Case,
    ids: &[u32],
    settings: TtftSettings,
    dense: Option<&[f32]>,
    progress: &mut dyn FnMut(usize, PrefillProgress),
) -> Result<Measured, SpeedError> {
    if settings.runs == 0 {
        return Err(SpeedError::Nothing { field: "--runs" });
    }
    contained("prefill", || {
        memory::begin(model.device());
        let mut session = Session::new(model, ids.len())?;
        let mut run = |run: usize| {
            session.prefill(ids, settings.chunk.into(), &case.settings, &mut |p| {
                progress(run, p)
            })
        };
        let first = run(0)?;
        let mut runs_s = Vec::with_capacity(settings.runs);
        for at in 1..=settings.runs {
            runs_s.push(run(at)?.seconds);
        }
        let compared = dense.filter(|_| !case.is_dense());
        let row = TtftRow {
            attention: case.name.clone(),
            length: ids.len(),
            ttft_s: median(&runs_s),
            runs_s,
            first_s: first.seconds,
            density: first.density,
            forced: case.forced,
            error: compared.map(|dense| distance(&first.last_hidden, dense)),
            memory: memory::facts(&session, settings.chunk),
        };
        Ok(Measured {
            row,
            last_hidden: first.last_hidden,
        })
    })
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
