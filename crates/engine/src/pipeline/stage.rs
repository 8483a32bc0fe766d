//! The thread of a stage: its part of the model, and the caches of all sequences.

use std::{
    collections::HashMap,
    sync::mpsc::{self, Receiver, Sender, SyncSender},
    time::Instant,
};

use sparse_accelerate::KvCache;
use sparse_accelerate_models::{CausalLm, LoadOptions, StageInput, Watch};

use super::{
    Load, Loading,
    board::{Beat, Board, Fault},
    job::{Carry, Chunk, Job, Reply, Request, Work},
};
use crate::{contain::contained, error::EngineError, memory, session::allocate};

/// A job that a stage has queued on its device.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) job: Job,
    /// When the stage had what it needed for it.
    pub(super) begun: Instant,
    /// Told when the results are taken; the stage queues nothing behind them before.
    pub(super) taken: SyncSender<()>,
}

/// Tells the board when a stage ends, however it ends.
struct Mark<'a> {
    board: &'a Board,
    stage: usize,
    /// Nobody is to send work any more.
    expected: bool,
}

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        if !self.expected {
            let reason = match std::thread::panicking() {
                true => "its thread panicked",
                false => "its thread ended",
            };
            self.board.lose(self.stage, reason);
        }
    }
}

/// Loads, then works until there are no more jobs.
pub(super) fn run(
    stage: usize,
    load: Load,
    options: &LoadOptions,
    told: &Sender<Loading>,
    jobs: Receiver<Job>,
    link: SyncSender<Queued>,
    board: &Board,
) {
    let loaded = contained("load", || {
        let mut progress = |bytes, total| {
            board.moved();
            // Who started the pipeline may have given up.
            let _ = told.send(Loading::Progress {
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
            let _ = told.send(Loading::Failed(board.of_stage(stage, error)));
            return;
        }
    };
    let _ = told.send(Loading::Ready {
        stage,
        weights: model.weight_bytes(),
        dtype: model.cache_dtype(),
    });
    let mut mark = Mark {
        board,
        stage,
        expected: false,
    };
    let device = model.device().clone();
    Stage {
        stage,
        model,
        caches: HashMap::new(),
        board,
    }
    .work(&mut mark, &jobs, &link);
    // Weights and caches are gone: what they lay in goes back to the device.
    device.memory_cleanup();
}

struct Stage<'a> {
    stage: usize,
    model: CausalLm,
    caches: HashMap<u64, KvCache>,
    board: &'a Board,
}

impl Stage<'_> {
    fn work(mut self, mark: &mut Mark<'_>, jobs: &Receiver<Job>, link: &SyncSender<Queued>) {
        loop {
            self.board.doing(self.stage, "idle");
            let Ok(mut job) = jobs.recv() else {
                mark.expected = true;
                return;
            };
            let begun = Instant::now();
            let mut fault = None;
            if let Work::Chunk(chunk) = &mut job.work {
                if job.request.is_stopped() {
                    job.request.reply(Reply::Skipped);
                    continue;
                }
                self.board
                    .doing(self.stage, format!("{} tokens", chunk.tokens));
                fault = self.board.fault(self.stage);
                if fault == Some(Fault::Exit) {
                    return;
                }
            }
            let request = job.request.clone();
            match self.run(&mut job, fault) {
                Ok(()) => {
                    self.board.doing(self.stage, "handing on");
                    let (taken, is_taken) = mpsc::sync_channel(1);
                    let sent = link.send(Queued { job, begun, taken }).is_ok();
                    if !sent || is_taken.recv().is_err() {
                        // The next stage is lost, and has said so.
                        mark.expected = true;
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
        request.reply(Reply::Failed(self.board.of_stage(self.stage, error)));
    }

    fn run(&mut self, job: &mut Job, fault: Option<Fault>) -> Result<(), EngineError> {
        let id = job.request.id;
        match &mut job.work {
            Work::Open { capacity } => {
                self.caches.insert(id, allocate(&self.model, *capacity)?);
            }
            Work::Rewind { len } => {
                if let Some(cache) = self.caches.get_mut(&id) {
                    cache.truncate(*len);
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
                let board = self.board;
                contained("prefill", || {
                    if fault == Some(Fault::Panic) {
                        panic!("a fault was injected");
                    }
                    compute(model, cache, chunk, board)
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
    chunk: &mut Chunk,
    board: &Board,
) -> Result<(), EngineError> {
    let mut beat = Beat(board);
    let watch = Watch {
        rows: None,
        observer: Some(&mut beat),
    };
    let (prompt, lens) = ([chunk.prompt], [chunk.tokens]);
    let settings = chunk.settings.clone();
    let carry = std::mem::replace(&mut chunk.carry, Carry::Ids(Vec::new()));
    let output = match carry {
        Carry::Ids(ids) => {
            let ids: [&[u32]; 1] = [&ids];
            let input = StageInput::Tokens(&ids);
            model.forward_stage(input, &prompt, cache, &settings, watch)?
        }
        Carry::Hidden(hidden) => {
            let input = StageInput::Carry {
                hidden,
                lens: &lens,
            };
            model.forward_stage(input, &prompt, cache, &settings, watch)?
        }
    };
    if model.part().output && chunk.wants_logits {
        chunk.logits = Some(model.logits(output.hidden.clone())?);
    }
    chunk.carry = Carry::Hidden(output.hidden);
    chunk.decision = Some(output.decision);
    chunk.selection.extend(output.selection);
    Ok(())
}
