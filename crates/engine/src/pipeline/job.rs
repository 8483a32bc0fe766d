//! Work that goes through the stages, and the answers that come back.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
    mpsc::Sender,
};

use burn::tensor::Tensor;
use sparse_accelerate::{AttentionSettings, Decision, SelectionRecord};

use crate::{error::EngineError, memory::MeasuredMemory, runner::Computed};

/// Work of one sequence. Every job is answered once: by the last link, or where it failed.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) request: Arc<Request>,
    pub(super) work: Work,
}

/// A sequence as the stages know it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: u64,
    replies: Sender<Reply>,
    /// Chunks that are still on their way are passed over.
    stopped: AtomicBool,
}

impl Request {
    pub(super) fn new(id: u64, replies: Sender<Reply>) -> Arc<Self> {
        Arc::new(Self {
            id,
            replies,
            stopped: AtomicBool::new(false),
        })
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn go_on(&self) {
        self.stopped.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Answers a job. Nobody may be waiting any more.
    pub(super) fn reply(&self, reply: Reply) {
        let _ = self.replies.send(reply);
    }
}

/// Something that every stage does, in order.
#[derive(Debug)]
pub(super) enum Work {
    /// Allocates the cache of a sequence.
    Open { capacity: usize },
    /// Computes new tokens.
    Chunk(Box<StageChunk>),
    /// Forgets what comes after the first tokens; `len` becomes 0 where a stage cannot keep so many.
    Rewind { len: usize },
    /// Gives the cache back.
    Close,
    /// Measures memory.
    Memory { stages: Vec<MeasuredMemory> },
}

/// New tokens on their way.
#[derive(Debug)]
pub(super) struct StageChunk {
    /// For the next stage; after the last, its results.
    pub(super) input: StageInput,
    /// New tokens.
    pub(super) tokens: usize,
    /// Length of the prompt they belong to.
    pub(super) prompt: usize,
    pub(super) settings: Arc<AttentionSettings>,
    /// The logits of the last token are wanted.
    pub(super) wants_logits: bool,
    /// Made by the last stage.
    pub(super) logits: Option<Tensor<2>>,
    /// Decision of attention: the same on every stage.
    pub(super) decision: Option<Decision>,
    /// Choices of the layers so far.
    pub(super) selection: Vec<SelectionRecord>,
    /// Seconds each stage so far had it in work.
    pub(super) busy_s: Vec<f64>,
}

/// Input of a stage.
// Boxed with its chunk.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub(super) enum StageInput {
    /// New tokens, for the first stage.
    Tokens(Vec<u32>),
    /// `[tokens, hidden]` on the device of the stage; after the last one `[1, hidden]`.
    Hidden(Tensor<2>),
}

/// The answer to a job.
#[derive(Debug)]
pub(super) enum Reply {
    /// Every stage has done it.
    Done,
    /// The last stage holds so many tokens.
    Rewound(usize),
    /// A chunk went through.
    Chunk(Box<Computed>),
    /// Peak of every stage.
    Memory(Vec<MeasuredMemory>),
    /// Passed over, because an earlier chunk failed or was cancelled.
    Skipped,
    /// Not done.
    Failed(EngineError),
}
