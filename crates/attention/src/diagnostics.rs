//! Events that a call's result does not show: hidden copies, kernels chosen by measurement.

use std::sync::atomic::{AtomicU64, Ordering};

static APPEND_COPIES: AtomicU64 = AtomicU64::new(0);

/// How often appending to a cache had to copy the whole cache first, because another handle to it
/// was alive, since the program started. Stays 0 in [`crate::KvCache`] unless a tensor that
/// [`crate::KvCache::key`] or [`crate::KvCache::value`] gave is kept over an append. Operations of lazy backends
/// count when they run: read a result first.
pub fn append_copies() -> u64 {
    APPEND_COPIES.load(Ordering::SeqCst)
}

pub(crate) fn count_append_copy() {
    APPEND_COPIES.fetch_add(1, Ordering::SeqCst);
}

/// A kernel chosen by measurement, see [`tuned_plans`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TunedPlan {
    /// The problems it serves, and on which device.
    pub problem: String,
    /// The plan that is taken.
    pub plan: String,
    /// Every plan that took part, in the order of preference without measurement, with its device time
    /// in milliseconds; `None` for one that failed and was left out.
    pub candidates: Vec<(String, Option<f64>)>,
}

/// Kernels measured since the program started, oldest first; empty on Flex, and where nothing was worth
/// a measurement. Operations of lazy backends count when they run: read a result first.
pub fn tuned_plans() -> Vec<TunedPlan> {
    crate::ops::tuned_plans()
}
