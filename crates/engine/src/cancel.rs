//! Ending a run from outside.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// A flag that ends what is running, at the next chunk or token. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    asked: Arc<AtomicBool>,
}

impl Cancel {
    /// Asks for the end, from any thread and any number of times.
    pub fn cancel(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// Whether the end was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// The flag itself, true once the end was asked for: what a signal handler may set.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.asked.clone()
    }

    /// Takes the question back, for the next run.
    pub fn reset(&self) {
        self.asked.store(false, Ordering::Relaxed);
    }
}
