//! Timing several algorithms at the first call of a plan; off unless asked for.

use std::env;

use cudarc::driver::{result::event, sys};

use super::{
    api::{Api, Raw},
    plan::{Addresses, Plan},
};

/// Algorithms to time at first use of a shape.
const TRY_ENV: &str = "SPARSE_ACCELERATE_CUBLASLT_TRY";
/// More the library does not order sensibly.
const MOST: usize = 32;
const RUNS: usize = 3;

/// Number of algorithms to ask the library for.
pub(super) fn tries() -> usize {
    let asked = env::var(TRY_ENV).ok().and_then(|value| value.parse().ok());
    asked.unwrap_or(1).clamp(1, MOST)
}

/// The index of the algorithm that runs fastest with these operands, waiting for each.
///
/// # Safety
/// As for [`Plan::enqueue`].
pub(super) unsafe fn fastest(
    plan: &Plan,
    api: &Api,
    handle: Raw,
    at: Addresses,
    stream: sys::CUstream,
) -> usize {
    // SAFETY: the caller's.
    let time = |algo| unsafe { time(plan, api, handle, algo, at, stream) };
    let times = (0..plan.algos.len()).filter_map(|algo| time(algo).map(|ms| (algo, ms)));
    times
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .map_or(0, |(algo, _)| algo)
}

/// The fastest of a few runs in milliseconds; `None` where the algorithm does not run.
unsafe fn time(
    plan: &Plan,
    api: &Api,
    handle: Raw,
    algo: usize,
    at: Addresses,
    stream: sys::CUstream,
) -> Option<f32> {
    let flags = sys::CUevent_flags::CU_EVENT_DEFAULT;
    let (begin, end) = (event::create(flags).ok()?, event::create(flags).ok()?);
    // SAFETY: the caller's; the events are ours.
    let run = || unsafe {
        event::record(begin, stream).ok()?;
        plan.enqueue(api, handle, algo, at, stream.cast()).ok()?;
        event::record(end, stream).ok()?;
        event::synchronize(end).ok()?;
        event::elapsed(begin, end).ok()
    };
    // The first loads the kernel.
    let best = run().and_then(|_| (0..RUNS).filter_map(|_| run()).reduce(f32::min));
    for event in [begin, end] {
        // SAFETY: created above, and waited for or never recorded.
        let _ = unsafe { event::destroy(event) };
    }
    best
}
