//! Counters that make invisible costs visible.

use std::sync::atomic::{AtomicU64, Ordering};

static APPEND_COPIES: AtomicU64 = AtomicU64::new(0);

/// How often appending to a cache had to copy the whole cache first, because another handle to it
/// was alive, since the program started. Stays 0 in [`crate::KvCache`]. Operations of lazy backends
/// count when they run: read a result first.
pub fn append_copies() -> u64 {
    APPEND_COPIES.load(Ordering::SeqCst)
}

pub(crate) fn count_append_copy() {
    APPEND_COPIES.fetch_add(1, Ordering::SeqCst);
}
