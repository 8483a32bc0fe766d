//! Signs of life of all stages, for those who wait.

use std::{
    fmt::Write,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use sparse_accelerate_models::{LayerObserver, LayerView, ModelError};

use crate::error::EngineError;

/// Time between two looks of a waiting thread at the stages.
const LOOK: Duration = Duration::from_millis(50);

/// Time that a pipeline which stood still is given to end.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// A way in which a stage breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An operation panics, as Burn's do without memory: the request fails, the stage goes on.
    Panic,
    /// The stage's thread ends.
    Exit,
    /// The stage stands still until the pipeline is dropped.
    Hang,
}

/// Watches the stages of a pipeline: every stage, link and layer reports that it moved, and a thread that
/// waits ends with an error where nothing has moved for too long.
#[derive(Debug)]
pub(super) struct Watchdog {
    devices: Vec<String>,
    stall: Duration,
    begun: Instant,
    /// Milliseconds from `begun` until something moved last.
    moved: AtomicU64,
    doing: Vec<Mutex<(String, Instant)>>,
    faults: Vec<Mutex<Option<Fault>>>,
    lost: Mutex<Option<(usize, String)>>,
    closing: AtomicBool,
    /// A thread has waited in vain.
    given_up: AtomicBool,
}

impl Watchdog {
    pub(super) fn new(devices: Vec<String>, stall: Duration) -> Self {
        let begun = Instant::now();
        let idle = || Mutex::new(("loading".to_string(), begun));
        Self {
            stall,
            begun,
            moved: AtomicU64::new(0),
            doing: devices.iter().map(|_| idle()).collect(),
            faults: devices.iter().map(|_| Mutex::new(None)).collect(),
            lost: Mutex::new(None),
            closing: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            devices,
        }
    }

    /// Reports that something moved.
    pub(super) fn moved(&self) {
        let now = self.begun.elapsed().as_millis() as u64;
        self.moved.fetch_max(now, Ordering::Relaxed);
    }

    /// Reports that a stage begins with something.
    pub(super) fn doing(&self, stage: usize, what: impl Into<String>) {
        *held(&self.doing[stage]) = (what.into(), Instant::now());
        self.moved();
    }

    /// Reports that a stage ended; the first reason counts.
    pub(super) fn lose(&self, stage: usize, reason: &str) {
        held(&self.lost).get_or_insert_with(|| (stage, reason.to_string()));
    }

    /// The stage that ended, if one did.
    pub(super) fn lost(&self) -> Option<EngineError> {
        let lost = held(&self.lost).clone();
        lost.map(|(stage, reason)| EngineError::StageLost {
            stage,
            device: self.devices[stage].clone(),
            reason,
        })
    }

    /// The error of a stage that does not take its work.
    pub(super) fn lost_at(&self, stage: usize, reason: &str) -> EngineError {
        self.lose(stage, reason);
        self.lost()
            .unwrap_or_else(|| EngineError::execution("pipeline", reason))
    }

    /// An error of a stage, with its name.
    pub(super) fn of_stage(&self, stage: usize, error: EngineError) -> EngineError {
        EngineError::Stage {
            stage,
            device: self.devices[stage].clone(),
            source: Box::new(error),
        }
    }

    /// Waits for the next reply; an error when a stage ended or everything stands still.
    pub(super) fn wait<T>(&self, replies: &Receiver<T>) -> Result<T, EngineError> {
        loop {
            match replies.recv_timeout(LOOK) {
                Ok(reply) => return Ok(reply),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.lost_at(0, "its thread ended"));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Some(lost) = self.lost() {
                // A reply may have come first.
                return replies.try_recv().map_err(|_| lost);
            }
            let still = self.still();
            if still > self.stall {
                self.given_up.store(true, Ordering::Relaxed);
                return Err(self.stalled(still));
            }
        }
    }

    fn still(&self) -> Duration {
        let moved = Duration::from_millis(self.moved.load(Ordering::Relaxed));
        self.begun.elapsed().saturating_sub(moved)
    }

    fn stalled(&self, still: Duration) -> EngineError {
        let mut what = String::new();
        for (stage, (device, doing)) in self.devices.iter().zip(&self.doing).enumerate() {
            let (doing, since) = &*held(doing);
            let comma = if stage == 0 { "" } else { ", " };
            let for_s = since.elapsed().as_secs_f64();
            let _ = write!(
                what,
                "{comma}stage {stage} ({device}): {doing} for {for_s:.0} s"
            );
        }
        EngineError::Stalled {
            waited_s: still.as_secs_f64(),
            limit_s: self.stall.as_secs_f64(),
            what,
        }
    }

    /// Reports that the pipeline is being dropped.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        self.moved();
    }

    /// Waits for a thread to end. False when nothing moves any more.
    pub(super) fn wait_for(&self, thread: &JoinHandle<()>) -> bool {
        let limit = match self.given_up.load(Ordering::Relaxed) {
            true => self.stall.min(LAST_WAIT),
            false => self.stall,
        };
        while !thread.is_finished() {
            if self.still() > limit {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// Breaks a stage at its next chunk.
    pub(super) fn inject(&self, stage: usize, fault: Fault) {
        if let Some(slot) = self.faults.get(stage) {
            *held(slot) = Some(fault);
        }
    }

    /// Takes the fault that waits for a stage; [`Fault::Hang`] is waited out here.
    pub(super) fn take_fault(&self, stage: usize) -> Option<Fault> {
        let fault = held(&self.faults[stage]).take();
        while fault == Some(Fault::Hang) && !self.closing.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        fault
    }
}

/// Reports every layer as a sign of life.
pub(super) struct Heartbeat<'a>(pub(super) &'a Watchdog);

impl LayerObserver for Heartbeat<'_> {
    fn layer(&mut self, _view: &LayerView<'_>) -> Result<(), ModelError> {
        self.0.moved();
        Ok(())
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
