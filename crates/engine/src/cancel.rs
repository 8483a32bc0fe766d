//! Cancelling a run from outside.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// A flag that ends a run at the next chunk or token. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    asked: Arc<AtomicBool>,
}

impl Cancel {
    /// Asks the run to end, from any thread and any number of times.
    pub fn cancel(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// True once the run was asked to end.
    pub fn is_cancelled(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// The flag itself, which a signal handler may set: true once the run was asked to end.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.asked.clone()
    }

    /// Clears the flag for the next run.
    pub fn reset(&self) {
        self.asked.store(false, Ordering::Relaxed);
    }
}
