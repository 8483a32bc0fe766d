//! The thread of a stage: its part of the model, and the caches of all sequences.

use std::{
    collections::HashMap,
    sync::mpsc::{self, Receiver, Sender, SyncSender},
    time::Instant,
};

use sparse_accelerate::KvCache;
use sparse_accelerate_models::{self as models, CausalLm, LoadOptions, Watch};

use super::{
    Load, Loading,
    job::{Job, Reply, Request, StageChunk, StageInput, Work},
    watchdog::{Fault, Heartbeat, Watchdog},
};
use crate::{contain::contained, error::EngineError, memory, runner::allocate};

/// A job that a stage has queued on its device.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) job: Job,
    /// Time at which the stage had its input.
    pub(super) begun: Instant,
    /// Acknowledges that the results are copied; the stage queues nothing behind them before.
    pub(super) copied: SyncSender<()>,
}

/// Reports a stage as lost when it is dropped, however the thread ends.
struct LossGuard<'a> {
    watchdog: &'a Watchdog,
    stage: usize,
    /// The end is in order: nobody sends work any more.
    expected: bool,
}

impl Drop for LossGuard<'_> {
    fn drop(&mut self) {
        if !self.expected {
            let reason = match std::thread::panicking() {
                true => "its thread panicked",
                false => "its thread ended",
            };
            self.watchdog.lose(self.stage, reason);
        }
    }
}

/// Loads, then works until there are no more jobs.
pub(super) fn run(
    stage: usize,
    load: Load,
    options: &LoadOptions,
    events: &Sender<Loading>,
    jobs: Receiver<Job>,
    link: SyncSender<Queued>,
    watchdog: &Watchdog,
) {
    let loaded = contained("load", || {
        let mut progress = |bytes, total| {
            watchdog.moved();
            // Who started the pipeline may have given up.
            let _ = events.send(Loading::Progress {
                stage,
                bytes,
                total,
            });
        };
        load(options, &mut progress).map_err(EngineError::from)
    });
    let model = match loaded {
        Ok(model) => model,
        Err(error) => {
            let _ = events.send(Loading::Failed(watchdog.of_stage(stage, error)));
            return;
        }
    };
    let _ = events.send(Loading::Ready {
        stage,
        weights: model.weight_bytes(),
        dtype: model.cache_dtype(),
    });
    let mut guard = LossGuard {
        watchdog,
        stage,
        expected: false,
    };
    let device = model.device().clone();
    Stage {
        stage,
        model,
        caches: HashMap::new(),
        watchdog,
    }
    .work(&mut guard, &jobs, &link);
    // Weights and caches are gone: what they lay in goes back to the device.
    device.memory_cleanup();
}

struct Stage<'a> {
    stage: usize,
    model: CausalLm,
    caches: HashMap<u64, KvCache>,
    watchdog: &'a Watchdog,
}

impl Stage<'_> {
    fn work(mut self, guard: &mut LossGuard<'_>, jobs: &Receiver<Job>, link: &SyncSender<Queued>) {
        loop {
            self.watchdog.doing(self.stage, "idle");
            let Ok(mut job) = jobs.recv() else {
                guard.expected = true;
                return;
            };
            let begun = Instant::now();
            let mut fault = None;
            if let Work::Chunk(chunk) = &mut job.work {
                if job.request.is_stopped() {
                    job.request.reply(Reply::Skipped);
                    continue;
                }
                self.watchdog
                    .doing(self.stage, format!("{} tokens", chunk.tokens));
                fault = self.watchdog.take_fault(self.stage);
                if fault == Some(Fault::Exit) {
                    return;
                }
            }
            let request = job.request.clone();
            match self.run(&mut job, fault) {
                Ok(()) => {
                    self.watchdog.doing(self.stage, "handing on");
                    let (copied, is_copied) = mpsc::sync_channel(1);
                    let sent = link.send(Queued { job, begun, copied }).is_ok();
                    if !sent || is_copied.recv().is_err() {
                        // The next stage is lost, and has said so.
                        guard.expected = true;
                        return;
                    }
                }
                Err(error) => self.fail(&request, error),
            }
        }
    }

    /// Ends a request's run. What it holds here is kept only if the device is not to blame.
    fn fail(&mut self, request: &Request, error: EngineError) {
        request.stop();
        if error.is_fatal() {
            self.caches.remove(&request.id);
            self.model.device().memory_cleanup();
        }
        request.reply(Reply::Failed(self.watchdog.of_stage(self.stage, error)));
    }

    fn run(&mut self, job: &mut Job, fault: Option<Fault>) -> Result<(), EngineError> {
        let id = job.request.id;
        match &mut job.work {
            Work::Open { capacity } => {
                self.caches.insert(id, allocate(&self.model, *capacity)?);
            }
            Work::Rewind { len } => {
                let cache = self.caches.get_mut(&id);
                if !cache.is_none_or(|cache| cache.truncate(*len)) {
                    *len = 0;
                }
            }
            Work::Close => {
                self.caches.remove(&id);
                memory::give_back(self.model.device());
            }
            Work::Memory { stages } => stages.push(memory::measure(self.model.device())),
            Work::Chunk(chunk) => {
                let model = &self.model;
                let cache = self.caches.get_mut(&id).ok_or_else(|| {
                    EngineError::execution("prefill", "the stage has no cache of this sequence")
                })?;
                let watchdog = self.watchdog;
                contained("prefill", || {
                    if fault == Some(Fault::Panic) {
                        panic!("a fault was injected");
                    }
                    compute(model, cache, chunk, watchdog)
                })?;
            }
        }
        Ok(())
    }
}

/// Queues a chunk on the device.
fn compute(
    model: &CausalLm,
    cache: &mut KvCache,
    chunk: &mut StageChunk,
    watchdog: &Watchdog,
) -> Result<(), EngineError> {
    let mut heartbeat = Heartbeat(watchdog);
    let watch = Watch {
        rows: None,
        observer: Some(&mut heartbeat),
    };
    let (prompt, lens) = ([chunk.prompt], [chunk.tokens]);
    let settings = chunk.settings.clone();
    let input = std::mem::replace(&mut chunk.input, StageInput::Tokens(Vec::new()));
    let output = match input {
        StageInput::Tokens(ids) => {
            let ids: [&[u32]; 1] = [&ids];
            let input = models::StageInput::Tokens(&ids);
            model.forward_stage(input, &prompt, cache, &settings, watch)?
        }
        StageInput::Hidden(states) => {
            let input = models::StageInput::Hidden {
                states,
                lens: &lens,
            };
            model.forward_stage(input, &prompt, cache, &settings, watch)?
        }
    };
    if model.part().output && chunk.wants_logits {
        chunk.logits = Some(model.logits(output.hidden.clone())?);
    }
    chunk.input = StageInput::Hidden(output.hidden);
    chunk.decision = Some(output.decision);
    chunk.selection.extend(output.selection);
    Ok(())
}
