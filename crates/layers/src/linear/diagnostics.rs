//! Counters that tests and benchmarks read.

use std::sync::atomic::{AtomicU64, Ordering};

static LAUNCHES: AtomicU64 = AtomicU64::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// Products handed to cuBLASLt by this process.
pub fn launches() -> u64 {
    LAUNCHES.load(Ordering::Relaxed)
}

/// Products that cuBLASLt had no algorithm for and Burn computed instead; each shape also warned once.
pub fn refused() -> u64 {
    REFUSED.load(Ordering::Relaxed)
}

#[cfg(feature = "cublaslt")]
pub(crate) fn count_launch() {
    LAUNCHES.fetch_add(1, Ordering::Relaxed);
}

#[cfg(feature = "cublaslt")]
pub(crate) fn count_refused() {
    REFUSED.fetch_add(1, Ordering::Relaxed);
}
