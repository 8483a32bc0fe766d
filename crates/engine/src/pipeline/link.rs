//! The thread behind a stage: waits for its chunks, and moves their hidden states on.
//!
//! A chunk counts as done on its stage when its last row of hidden states can be read. A stage has a chunk
//! in work from the moment it has its input and is done with the chunk before, until then.
//!
//! CubeCL orders work of two threads by the end of what one of them has queued so far. Who reads a chunk's
//! results when the stage has queued the next chunk behind them waits for that one too. So results are
//! copied first, by operations of this thread, queued while they are the stage's latest. Only then the stage
//! goes on, with the chunk still running; the copies wait for nothing else.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender},
    },
    time::Instant,
};

use burn::tensor::{Device, Tensor, TensorData};

use super::{
    job::{Job, Reply, StageChunk, StageInput, Work},
    options::Transport,
    stage::Queued,
    watchdog::Watchdog,
};
use crate::{
    contain::contained,
    error::EngineError,
    runner::{Computed, read, values},
};

/// Passes the results of a stage on to the next, or to the sequence after the last.
pub(super) struct Link {
    /// The stage before it.
    pub(super) stage: usize,
    /// Device of the next stage; `None` behind the last.
    pub(super) next: Option<Device>,
    pub(super) transport: Transport,
    pub(super) watchdog: Arc<Watchdog>,
}

impl Link {
    /// Works until the stage ends or the next one does.
    pub(super) fn run(&self, from: Receiver<Queued>, to: Option<&SyncSender<Job>>) {
        let mut done = None;
        while let Ok(Queued {
            mut job,
            begun,
            copied,
        }) = from.recv()
        {
            if let Work::Chunk(chunk) = &mut job.work {
                let last = contained("hand on", || copy_results(chunk));
                // The stage may have ended meanwhile.
                let _ = copied.send(());
                let moved = last.and_then(|last| {
                    contained("hand on", || self.chunk(chunk, last, begun, &mut done))
                });
                self.watchdog.moved();
                if let Err(error) = moved {
                    job.request.stop();
                    let error = self.watchdog.of_stage(self.stage, error);
                    job.request.reply(Reply::Failed(error));
                    continue;
                }
            } else {
                let _ = copied.send(());
            }
            match to {
                Some(next) => {
                    if let Err(refused) = next.send(job) {
                        let error = self.watchdog.lost_at(self.stage + 1, "its thread ended");
                        refused.0.request.reply(Reply::Failed(error));
                        return;
                    }
                }
                None => {
                    let request = job.request.clone();
                    request.reply(match contained("read back", || answer(job.work)) {
                        Ok(reply) => reply,
                        Err(error) => {
                            request.stop();
                            Reply::Failed(self.watchdog.of_stage(self.stage, error))
                        }
                    });
                }
            }
            self.watchdog.moved();
        }
    }

    /// Waits for a chunk by its last row and moves its hidden states.
    fn chunk(
        &self,
        chunk: &mut StageChunk,
        last: TensorData,
        begun: Instant,
        done: &mut Option<Instant>,
    ) -> Result<(), EngineError> {
        // Of a stage that failed this is where it comes out.
        values(last)?;
        let now = Instant::now();
        let begun = done.map_or(begun, |done| done.max(begun));
        chunk.busy_s.push((now - begun).as_secs_f64());
        *done = Some(now);
        if let (Some(device), StageInput::Hidden(states)) = (&self.next, &chunk.input) {
            let states = states.clone();
            chunk.input = StageInput::Tokens(Vec::new());
            chunk.input = StageInput::Hidden(moved(states, device, self.transport)?);
        }
        Ok(())
    }
}

/// Copies a chunk's results, and gives the last row of its hidden states, which is read when it is looked at.
fn copy_results(chunk: &mut StageChunk) -> Result<TensorData, EngineError> {
    chunk.logits = chunk.logits.take().map(copied);
    let hidden = match &chunk.input {
        StageInput::Hidden(states) => copied(states.clone()),
        StageInput::Tokens(_) => {
            return Err(EngineError::execution("hand on", "a chunk without results"));
        }
    };
    let last = hidden.dims()[0] - 1;
    let row = hidden.clone().slice_dim(0, last..last + 1);
    chunk.input = StageInput::Hidden(hidden);
    if let Some(logits) = &chunk.logits {
        // Queued with the others.
        let _ = logits.clone().try_into_data();
    }
    row.try_into_data()
        .map_err(|error| EngineError::execution("hand on", error))
}

/// Copies a tensor, bit for bit, by operations of this thread.
fn copied(x: Tensor<2>) -> Tensor<2> {
    let width = x.dims()[1];
    let half = width / 2;
    let left = x.clone().slice_dim(1, 0..half);
    Tensor::cat(vec![left, x.slice_dim(1, half..width)], 1)
}

/// Moves hidden states to another device, bit for bit.
fn moved(
    states: Tensor<2>,
    device: &Device,
    transport: Transport,
) -> Result<Tensor<2>, EngineError> {
    match transport {
        Transport::Peer => Ok(states.to_device(device)),
        Transport::Host => {
            let dtype = states.dtype();
            let data = states
                .try_into_data()
                .map_err(|error| EngineError::execution("hand on", error))?;
            Ok(Tensor::from_data(data, (device, dtype)))
        }
    }
}

/// Makes the answer of the last stage's work.
fn answer(work: Work) -> Result<Reply, EngineError> {
    Ok(match work {
        Work::Open { .. } | Work::Close => Reply::Done,
        Work::Rewind { len } => Reply::Rewound(len),
        Work::Memory { stages } => Reply::Memory(stages),
        Work::Chunk(chunk) => {
            let logits = chunk.logits.map(read).transpose()?.unwrap_or_default();
            let last_hidden = match chunk.input {
                StageInput::Hidden(states) => read(states)?,
                StageInput::Tokens(_) => Vec::new(),
            };
            let decision = chunk.decision.ok_or_else(|| {
                EngineError::execution("read back", "a chunk that no stage has computed")
            })?;
            Reply::Chunk(Box::new(Computed {
                last_hidden,
                logits,
                nll: Vec::new(),
                states: None,
                decision,
                selection: chunk.selection,
                busy_s: chunk.busy_s,
            }))
        }
    })
}
