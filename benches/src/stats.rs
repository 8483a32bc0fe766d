//! Timings of contestants that take turns.

use std::{fmt, time::Instant};

use anyhow::Result;
use serde::Serialize;

/// Seconds over the timed runs.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Timing {
    pub(crate) minimum: f64,
    pub(crate) median: f64,
    pub(crate) maximum: f64,
    pub(crate) runs: usize,
}

impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:8.3} s median of {} ({:.3} to {:.3})",
            self.median, self.runs, self.minimum, self.maximum
        )
    }
}

/// One warm-up each, then `runs` rounds in which every contestant runs once, in turn.
pub(crate) fn alternate<const N: usize>(
    runs: usize,
    mut contestants: [&mut dyn FnMut() -> Result<()>; N],
) -> Result<[Timing; N]> {
    for contestant in &mut contestants {
        contestant()?;
    }
    let mut seconds: [Vec<f64>; N] = std::array::from_fn(|_| Vec::with_capacity(runs));
    for round in 0..runs {
        for (list, contestant) in seconds.iter_mut().zip(&mut contestants) {
            let start = Instant::now();
            contestant()?;
            list.push(start.elapsed().as_secs_f64());
        }
        eprintln!("round {} of {runs} done", round + 1);
    }
    Ok(seconds.map(|mut list| {
        list.sort_by(f64::total_cmp);
        Timing {
            minimum: list[0],
            median: list[list.len() / 2],
            maximum: list[list.len() - 1],
            runs: list.len(),
        }
    }))
}
