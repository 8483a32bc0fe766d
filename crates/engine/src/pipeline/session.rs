//! A sequence on a pipeline.

use std::{
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
    time::Instant,
};

use sparse_accelerate::AttentionSettings;
use sparse_accelerate_checkpoint::ModelConfig;

use super::{
    Pipeline,
    job::{Carry, Chunk, Computed, Job, Reply, Request, Work},
};
use crate::{
    cancel::Cancel,
    chunking::Chunking,
    error::EngineError,
    generate::MemoryReport,
    memory::{self, MeasuredMemory, MemoryPlan, Workload},
    selection::Chunks,
    sequence::{Prefill, PrefillProgress, Sequence, density, too_many_positions},
};

/// One sequence on the stages of a [`Pipeline`]; several may run at once, each in a thread of its own.
///
/// Dropping it gives its caches back.
#[derive(Debug)]
pub struct PipelineSession<'p> {
    pipeline: &'p Pipeline,
    request: Arc<Request>,
    replies: Receiver<Reply>,
    capacity: usize,
    tokens: Vec<u32>,
    /// Whether the stages hold a cache.
    open: bool,
    cancel: Cancel,
}

impl<'p> PipelineSession<'p> {
    pub(super) fn open(pipeline: &'p Pipeline, capacity: usize) -> Result<Self, EngineError> {
        let limit = pipeline.config().max_positions;
        if capacity > limit {
            return Err(too_many_positions(capacity, 0, limit));
        }
        let (request, replies) = connect(pipeline);
        let mut session = Self {
            pipeline,
            request,
            replies,
            capacity,
            tokens: Vec::new(),
            open: false,
            cancel: Cancel::default(),
        };
        session.ensure_open()?;
        Ok(session)
    }

    fn submit(&self, work: Work) -> Result<(), EngineError> {
        self.pipeline.submit(Job {
            request: self.request.clone(),
            work,
        })
    }

    fn wait(&self) -> Result<Reply, EngineError> {
        self.pipeline.board.wait(&self.replies)
    }

    /// Something all stages do; nothing else of this sequence is on its way.
    fn all_do(&self, work: Work) -> Result<Reply, EngineError> {
        self.submit(work)?;
        match self.wait()? {
            Reply::Failed(error) => Err(error),
            reply => Ok(reply),
        }
    }

    fn ensure_open(&mut self) -> Result<(), EngineError> {
        if self.open {
            return Ok(());
        }
        let capacity = self.capacity;
        // Stages before one that failed hold a cache: closed with the session.
        self.open = true;
        if let Err(error) = self.all_do(Work::Open { capacity }) {
            self.close();
            return Err(error);
        }
        Ok(())
    }

    /// Gives the caches up; the next run allocates new ones.
    fn close(&mut self) {
        if std::mem::take(&mut self.open) {
            // A pipeline that is lost has given them up already. Nobody waits for the answer.
            let _ = self.submit(Work::Close);
        }
        self.tokens.clear();
        (self.request, self.replies) = connect(self.pipeline);
    }

    /// Brings the stages back to what they held before a run that failed.
    fn recover(&mut self, error: &EngineError) {
        if error.is_fatal() {
            self.close();
            return;
        }
        self.request.go_on();
        let len = self.tokens.len();
        if self.all_do(Work::Rewind { len }).is_err() {
            self.close();
        }
    }

    /// Sends chunks through the stages, some at a time, and gives each result to `take`.
    fn run(
        &mut self,
        ids: &[u32],
        sizes: &[usize],
        settings: &AttentionSettings,
        take: &mut dyn FnMut(usize, Computed),
    ) -> Result<(), EngineError> {
        self.ensure_open()?;
        let settings = Arc::new(settings.clone());
        let prompt = self.tokens.len() + ids.len();
        // As many as the stages and their channels hold.
        let window = 2 * self.pipeline.devices().len() + 2;
        let (mut sent, mut at, mut answered, mut done) = (0, 0, 0, 0);
        let mut failed = None;
        loop {
            if failed.is_none() && self.cancel.is_cancelled() {
                self.request.stop();
                failed = Some(EngineError::Cancelled {
                    done,
                    total: ids.len(),
                });
            }
            while failed.is_none() && sent < sizes.len() && sent - answered < window {
                let size = sizes[sent];
                sent += 1;
                self.submit(Work::Chunk(Box::new(Chunk {
                    carry: Carry::Ids(ids[at..at + size].to_vec()),
                    tokens: size,
                    prompt,
                    settings: settings.clone(),
                    wants_logits: sent == sizes.len(),
                    logits: None,
                    decision: None,
                    selection: Vec::new(),
                    busy_s: Vec::new(),
                })))?;
                at += size;
            }
            if answered == sent {
                return failed.map_or(Ok(()), Err);
            }
            match self.wait()? {
                Reply::Chunk(computed) => {
                    take(sizes[answered], *computed);
                    done += sizes[answered];
                }
                Reply::Failed(error) => {
                    failed.get_or_insert(error);
                }
                Reply::Done | Reply::Memory(_) | Reply::Skipped => {}
            }
            answered += 1;
        }
    }

    fn extend_checked(
        &mut self,
        ids: &[u32],
        sizes: &[usize],
        settings: &AttentionSettings,
        progress: &mut dyn FnMut(PrefillProgress),
    ) -> Result<Prefill, EngineError> {
        let start = Instant::now();
        let (reused, total) = (self.tokens.len(), ids.len());
        progress(PrefillProgress { done: 0, total });
        let mut chunks = Chunks::default();
        let (mut done, mut last) = (0, None);
        let mut busy_s = vec![0.0; self.pipeline.devices().len()];
        let mut chunks_s = 0.0;
        self.run(ids, sizes, settings, &mut |size, mut computed| {
            let from = reused + done;
            if let Some(decision) = computed.decision {
                let selection = std::mem::take(&mut computed.selection);
                chunks.keep(from..from + size, decision, selection);
            }
            for (sum, busy) in busy_s.iter_mut().zip(&computed.busy_s) {
                *sum += busy;
            }
            done += size;
            chunks_s = start.elapsed().as_secs_f64();
            last = Some(computed);
            progress(PrefillProgress { done, total });
        })?;
        let last = last.ok_or(EngineError::EmptyPrompt)?;
        let seconds = start.elapsed().as_secs_f64();
        let (decisions, selection) = chunks.read()?;
        Ok(Prefill {
            last_hidden: last.last_hidden,
            logits: last.logits.unwrap_or_default(),
            density: density(&decisions),
            decisions,
            selection,
            tokens: total,
            reused,
            chunks_s,
            seconds,
            busy_s,
        })
    }
}

impl Sequence for PipelineSession<'_> {
    fn config(&self) -> &ModelConfig {
        self.pipeline.config()
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    fn cancel(&self) -> Cancel {
        self.cancel.clone()
    }

    fn extend(
        &mut self,
        ids: &[u32],
        chunking: Chunking,
        settings: &AttentionSettings,
        progress: &mut dyn FnMut(PrefillProgress),
    ) -> Result<Prefill, EngineError> {
        let sizes = self.chunk_sizes(ids.len(), chunking)?;
        self.pipeline.check_ids(ids)?;
        let prefill = self.extend_checked(ids, &sizes, settings, progress);
        match &prefill {
            Ok(_) => self.tokens.extend_from_slice(ids),
            Err(error) => self.recover(error),
        }
        prefill
    }

    fn decode(&mut self, token: u32) -> Result<Vec<f32>, EngineError> {
        self.check(self.tokens.len(), 1)?;
        let mut logits = Vec::new();
        let dense = AttentionSettings::dense();
        let run = self.run(&[token], &[1], &dense, &mut |_, computed| {
            logits = computed.logits.unwrap_or_default();
        });
        match run {
            Ok(()) => self.tokens.push(token),
            Err(error) => {
                self.recover(&error);
                return Err(error);
            }
        }
        Ok(logits)
    }

    fn rewind(&mut self, len: usize) -> Result<(), EngineError> {
        if len >= self.tokens.len() {
            return Ok(());
        }
        self.tokens.truncate(len);
        let rewound = self.all_do(Work::Rewind { len });
        if rewound.is_err() {
            self.close();
        }
        rewound.map(drop)
    }

    fn memory(
        &mut self,
        chunking: Chunking,
        settings: &AttentionSettings,
    ) -> Result<MemoryReport, EngineError> {
        let pipeline = self.pipeline;
        let workload = Workload {
            mlp_rows: pipeline.mlp_rows,
            kv: pipeline.kv,
            gpu: pipeline.devices().iter().any(memory::is_pooled),
            ..Workload::new(pipeline.dtype().size(), self.capacity, chunking.longest())
        };
        let workload = workload.with_attention(settings);
        let stages = match self.all_do(Work::Memory { stages: Vec::new() })? {
            Reply::Memory(stages) => stages,
            _ => Vec::new(),
        };
        Ok(MemoryReport {
            planned: MemoryPlan::placed(pipeline.config(), pipeline.placement(), &workload),
            measured: self.pipeline.together(&stages),
            stages,
        })
    }
}

impl Drop for PipelineSession<'_> {
    fn drop(&mut self) {
        self.request.stop();
        self.close();
    }
}

impl Pipeline {
    /// Refuses tokens that a stage would refuse when earlier chunks are done already.
    fn check_ids(&self, ids: &[u32]) -> Result<(), EngineError> {
        let vocab = self.config().vocab_size;
        match ids.iter().find(|&&id| id as usize >= vocab) {
            Some(&id) => {
                Err(sparse_accelerate_models::ModelError::TokenOutOfRange { id, vocab }.into())
            }
            None => Ok(()),
        }
    }

    /// Peaks of the stages in one number; stages on one device share its peak.
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
