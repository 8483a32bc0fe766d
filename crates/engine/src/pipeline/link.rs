//! The thread behind a stage: waits for its chunks, and moves their hidden states on.
//!
//! A chunk counts as done on its stage when its last row of hidden states can be read. A stage has a chunk
//! in work from the moment it has its input and is done with the chunk before, until then.
//!
//! CubeCL orders work of two threads by the end of what one of them has queued so far. Who reads a chunk's
//! results when the stage has queued the next chunk behind them waits for that one too. So results are
//! *taken* first: copied by operations of this thread, queued while they are the stage's latest. Only then the
//! stage goes on, with the chunk still running; from the copies nothing else has to be waited for.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender},
    },
    time::Instant,
};

use burn::tensor::{Device, Tensor, TensorData};

use super::{
    board::Board,
    job::{Carry, Chunk, Computed, Job, Reply, Work},
    options::Transport,
    stage::Queued,
};
use crate::{
    contain::contained,
    error::EngineError,
    session::{read, values},
};

/// Where a stage's results go.
pub(super) struct Link {
    /// The stage before it.
    pub(super) stage: usize,
    /// Device of the next stage; `None` behind the last.
    pub(super) next: Option<Device>,
    pub(super) transport: Transport,
    pub(super) board: Arc<Board>,
}

impl Link {
    /// Works until the stage ends or the next one does.
    pub(super) fn run(&self, from: Receiver<Queued>, to: Option<&SyncSender<Job>>) {
        let mut done = None;
        while let Ok(Queued {
            mut job,
            begun,
            taken,
        }) = from.recv()
        {
            if let Work::Chunk(chunk) = &mut job.work {
                let last = contained("hand on", || take(chunk));
                // The stage may have ended meanwhile.
                let _ = taken.send(());
                let moved = last.and_then(|last| {
                    contained("hand on", || self.chunk(chunk, last, begun, &mut done))
                });
                self.board.moved();
                if let Err(error) = moved {
                    job.request.stop();
                    let error = self.board.of_stage(self.stage, error);
                    job.request.reply(Reply::Failed(error));
                    continue;
                }
            } else {
                let _ = taken.send(());
            }
            match to {
                Some(next) => {
                    if let Err(refused) = next.send(job) {
                        let error = self.board.lost_at(self.stage + 1, "its thread ended");
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
                            Reply::Failed(self.board.of_stage(self.stage, error))
                        }
                    });
                }
            }
            self.board.moved();
        }
    }

    /// Waits for a chunk by its last row and moves its hidden states.
    fn chunk(
        &self,
        chunk: &mut Chunk,
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
        if let (Some(device), Carry::Hidden(hidden)) = (&self.next, &chunk.carry) {
            let hidden = hidden.clone();
            chunk.carry = Carry::Ids(Vec::new());
            chunk.carry = Carry::Hidden(carried(hidden, device, self.transport)?);
        }
        Ok(())
    }
}

/// Takes a chunk's results, and gives the last row of its hidden states, which is read when it is looked at.
fn take(chunk: &mut Chunk) -> Result<TensorData, EngineError> {
    chunk.logits = chunk.logits.take().map(copied);
    let hidden = match &chunk.carry {
        Carry::Hidden(hidden) => copied(hidden.clone()),
        Carry::Ids(_) => {
            return Err(EngineError::execution("hand on", "a chunk without results"));
        }
    };
    let last = hidden.dims()[0] - 1;
    let row = hidden.clone().slice_dim(0, last..last + 1);
    chunk.carry = Carry::Hidden(hidden);
    if let Some(logits) = &chunk.logits {
        // Queued with the others.
        let _ = logits.clone().try_into_data();
    }
    row.try_into_data()
        .map_err(|error| EngineError::execution("hand on", error))
}

/// A copy, bit for bit, by operations of this thread.
fn copied(x: Tensor<2>) -> Tensor<2> {
    let width = x.dims()[1];
    let half = width / 2;
    let left = x.clone().slice_dim(1, 0..half);
    Tensor::cat(vec![left, x.slice_dim(1, half..width)], 1)
}

/// Hidden states on another device, bit for bit.
fn carried(
    hidden: Tensor<2>,
    device: &Device,
    transport: Transport,
) -> Result<Tensor<2>, EngineError> {
    match transport {
        Transport::Peer => Ok(hidden.to_device(device)),
        Transport::Host => {
            let dtype = hidden.dtype();
            let data = hidden
                .try_into_data()
                .map_err(|error| EngineError::execution("carry", error))?;
            Ok(Tensor::from_data(data, (device, dtype)))
        }
    }
}

/// What the last stage's work comes to.
fn answer(work: Work) -> Result<Reply, EngineError> {
    Ok(match work {
        Work::Open { .. } | Work::Rewind { .. } | Work::Close => Reply::Done,
        Work::Memory { stages } => Reply::Memory(stages),
        Work::Chunk(chunk) => {
            let logits = chunk.logits.map(read).transpose()?;
            let last_hidden = match chunk.carry {
                Carry::Hidden(hidden) => read(hidden)?,
                Carry::Ids(_) => Vec::new(),
            };
            Reply::Chunk(Box::new(Computed {
                last_hidden,
                logits,
                decision: chunk.decision,
                selection: chunk.selection,
                busy_s: chunk.busy_s,
            }))
        }
    })
}
