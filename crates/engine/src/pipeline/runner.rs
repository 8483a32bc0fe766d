//! A sequence's side of a pipeline: sends its work to the first stage and waits for the answers of the last.

use std::sync::{
    Arc,
    mpsc::{self, Receiver},
};

use sparse_accelerate_checkpoint::ModelConfig;
use sparse_accelerate_models::Placement;

use super::{
    Pipeline,
    job::{Job, Reply, Request, StageChunk, StageInput, Work},
};
use crate::{
    error::EngineError,
    memory::{self, Footprint, MeasuredMemory},
    runner::{Answer, Chunk, Divergence, Runner, States, Wanted},
};

/// One sequence on the stages of a [`Pipeline`]; several may run at once, each in a thread of its own.
///
/// Dropping it gives its caches back.
#[derive(Debug)]
pub(super) struct Staged<'p> {
    pipeline: &'p Pipeline,
    request: Arc<Request>,
    replies: Receiver<Reply>,
    /// The stages hold a cache.
    open: bool,
}

impl<'p> Staged<'p> {
    pub(super) fn new(pipeline: &'p Pipeline) -> Self {
        let (request, replies) = connect(pipeline);
        Self {
            pipeline,
            request,
            replies,
            open: false,
        }
    }

    fn submit(&self, work: Work) -> Result<(), EngineError> {
        self.pipeline.submit(Job {
            request: self.request.clone(),
            work,
        })
    }

    fn wait(&self) -> Result<Reply, EngineError> {
        self.pipeline.watchdog.wait(&self.replies)
    }

    /// Has every stage do something, while nothing else of this sequence is on its way.
    fn all_do(&self, work: Work) -> Result<Reply, EngineError> {
        self.submit(work)?;
        match self.wait()? {
            Reply::Failed(error) => Err(error),
            reply => Ok(reply),
        }
    }

    /// Gives the caches up; the next run allocates new ones.
    fn close(&mut self) {
        if std::mem::take(&mut self.open) {
            // A pipeline that is lost has given them up already. Nobody waits for the answer.
            let _ = self.submit(Work::Close);
        }
        (self.request, self.replies) = connect(self.pipeline);
    }
}

impl Runner for Staged<'_> {
    fn config(&self) -> &ModelConfig {
        self.pipeline.config()
    }

    fn placement(&self) -> Placement {
        self.pipeline.placement().clone()
    }

    fn footprint(&self) -> Footprint {
        let pipeline = self.pipeline;
        let gpu = pipeline.devices().iter().any(memory::is_pooled);
        Footprint::new(pipeline.dtype().size(), &pipeline.model, gpu)
    }

    fn check_whole(&self) -> Result<(), EngineError> {
        Err(self.pipeline.staged())
    }

    fn diverge(&self, _: &States, _: &States) -> Result<Divergence, EngineError> {
        Err(self.pipeline.staged())
    }

    /// As many as the stages and their channels hold.
    fn window(&self) -> usize {
        2 * self.pipeline.devices().len() + 2
    }

    fn open(&mut self, capacity: usize) -> Result<(), EngineError> {
        if self.open {
            return Ok(());
        }
        // Stages before one that failed hold a cache: closed with the sequence.
        self.open = true;
        let opened = self.all_do(Work::Open { capacity });
        if opened.is_err() {
            self.close();
        }
        opened.map(drop)
    }

    fn send(&mut self, chunk: Chunk<'_>) -> Result<(), EngineError> {
        let wants_logits = match chunk.wanted {
            Wanted::Nothing => false,
            Wanted::Logits | Wanted::LogitsAndHidden => true,
            Wanted::Scores { .. } => return Err(self.pipeline.staged()),
        };
        if chunk.observer.is_some() {
            return Err(self.pipeline.staged());
        }
        self.submit(Work::Chunk(Box::new(StageChunk {
            input: StageInput::Tokens(chunk.ids.to_vec()),
            tokens: chunk.ids.len(),
            prompt: chunk.prompt,
            settings: chunk.settings.clone(),
            wants_logits,
            logits: None,
            decision: None,
            selection: Vec::new(),
            busy_s: Vec::new(),
        })))
    }

    fn receive(&mut self) -> Result<Answer, EngineError> {
        Ok(match self.wait()? {
            Reply::Chunk(computed) => Answer::Computed(computed),
            Reply::Failed(error) => Answer::Failed(error),
            Reply::Done | Reply::Rewound(_) | Reply::Memory(_) | Reply::Skipped => Answer::Skipped,
        })
    }

    fn stop(&mut self) {
        self.request.stop();
    }

    fn rewind(&mut self, len: usize) -> Result<usize, EngineError> {
        let mut rewound = self.all_do(Work::Rewind { len });
        // A stage could not keep them: those before it let go of theirs.
        if len > 0 && matches!(rewound, Ok(Reply::Rewound(0))) {
            rewound = self.all_do(Work::Rewind { len: 0 });
        }
        if rewound.is_err() {
            self.close();
        }
        Ok(match rewound? {
            Reply::Rewound(len) => len,
            _ => 0,
        })
    }

    fn recover(&mut self, error: &EngineError, held: usize) -> bool {
        if error.is_fatal() || !self.open {
            self.close();
            return false;
        }
        self.request.go_on();
        self.rewind(held).is_ok_and(|kept| kept == held)
    }

    fn measure(&mut self) -> Result<(MeasuredMemory, Vec<MeasuredMemory>), EngineError> {
        let stages = match self.all_do(Work::Memory { stages: Vec::new() })? {
            Reply::Memory(stages) => stages,
            _ => Vec::new(),
        };
        Ok((self.pipeline.together(&stages), stages))
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        self.request.stop();
        self.close();
    }
}

impl Pipeline {
    /// The refusal of work that needs the model on one device.
    fn staged(&self) -> EngineError {
        EngineError::Staged {
            stages: self.devices().len(),
        }
    }

    /// Sums the peaks of the stages; stages on one device share its peak.
    fn together(&self, stages: &[MeasuredMemory]) -> MeasuredMemory {
        let mut bytes = Some(0);
        for (at, measured) in stages.iter().enumerate() {
            if self.devices()[..at].contains(&self.devices()[at]) {
                continue;
            }
            bytes = bytes
                .zip(measured.bytes)
                .map(|(sum, bytes): (u64, u64)| sum + bytes);
        }
        MeasuredMemory {
            bytes,
            source: stages.first().map_or("no stage", |first| first.source),
        }
    }
}

fn connect(pipeline: &Pipeline) -> (Arc<Request>, Receiver<Reply>) {
    let (sender, replies) = mpsc::channel();
    (Request::new(pipeline.next_request(), sender), replies)
}
