//! A model on several devices: stages that work on different chunks at once.
//!
//! ```text
//! sequence ─chunks─► stage 0 ─► link 0 ─► stage 1 ─► link 1 ─► reply
//!                    cuda:0     hidden    cuda:1     logits
//!                               states
//! ```
//!
//! Every stage is a long-lived thread that owns its part of the model and, for every sequence, its part of
//! the KV cache. It queues the work of a chunk on its device and takes the next; a link waits for the
//! chunk, moves the hidden states to the next stage's device and passes them on through a bounded channel,
//! so that transfers overlap with the next chunk. Sequences share the stages: their chunks and tokens go
//! through in the order in which they come, which keeps all devices busy while several decode.
//!
//! Stages run the operations of one device in its order. Where their devices are alike the
//! result is equal to one device's, bit for bit, for the same chunks.
//!
//! Nothing waits without a limit: a watchdog is told by every stage, link and layer that it moved, and asked
//! by whoever waits. A stage that ended is [`EngineError::StageLost`], one that stands still for
//! too long [`EngineError::Stalled`]. After either, load the pipeline again.

mod job;
mod link;
mod options;
mod runner;
mod stage;
mod watchdog;

pub use options::{PipelineOptions, Transport};
pub use watchdog::Fault;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Sender},
    },
    thread::JoinHandle,
};

use burn::tensor::{DType, Device};
use sparse_accelerate_checkpoint::{ModelConfig, ModelDir};
use sparse_accelerate_models::{CausalLm, LoadOptions, ModelError, ModelOptions, Placement};

use crate::{error::EngineError, sequence::Sequence};
use job::Job;
use link::Link;
use runner::Staged;
use watchdog::Watchdog;

/// Chunks that may wait between a stage and its link, and between a link and the next stage.
const WAITING: usize = 1;

/// A model on the devices of its stages.
pub struct Pipeline {
    config: ModelConfig,
    placement: Placement,
    devices: Vec<Device>,
    /// Bytes of the weights of every stage.
    weights: Vec<u64>,
    model: ModelOptions,
    chunks: Option<usize>,
    dtype: DType,
    /// To the first stage; `None` while shutting down.
    first: Option<Sender<Job>>,
    watchdog: Arc<Watchdog>,
    threads: Vec<JoinHandle<()>>,
    requests: AtomicU64,
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline")
            .field("placement", &self.placement)
            .field("devices", &self.devices)
            .field("watchdog", &self.watchdog)
            .finish_non_exhaustive()
    }
}

/// Events of a stage that loads.
enum Loading {
    Progress {
        stage: usize,
        bytes: u64,
        total: u64,
    },
    Ready {
        stage: usize,
        weights: u64,
        dtype: DType,
    },
    Failed(EngineError),
}

/// Loads the part of a model that options ask for.
type Load =
    Box<dyn FnOnce(&LoadOptions, &mut dyn FnMut(u64, u64)) -> Result<CausalLm, ModelError> + Send>;

impl Pipeline {
    /// Loads a model directory: every stage reads its own weights, straight to its device, all at once.
    /// `progress` is told bytes loaded and bytes in all.
    ///
    /// # Errors
    /// As [`CausalLm::load`], of any stage; a placement that does not fit the model or the devices.
    pub fn load(
        dir: &ModelDir,
        options: &PipelineOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, EngineError> {
        let mut loads = Vec::new();
        for _ in &options.devices {
            let (config, weights) = (dir.config().clone(), dir.weights()?);
            loads.push(Box::new(
                move |options: &LoadOptions, progress: &mut dyn FnMut(u64, u64)| {
                    CausalLm::from_weights(&config, weights, options, &mut |p| {
                        progress(p.bytes, p.total_bytes);
                    })
                },
            ) as Load);
        }
        Self::start(dir.config(), loads, options, progress)
    }

    /// Random weights from a seed, those of [`CausalLm::random`] or, with `on_device`, of
    /// [`CausalLm::random_on_device`].
    ///
    /// # Errors
    /// As [`Pipeline::load`].
    pub fn random(
        config: &ModelConfig,
        seed: u64,
        on_device: bool,
        options: &PipelineOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, EngineError> {
        let load = |_| {
            let config = config.clone();
            Box::new(
                move |options: &LoadOptions, progress: &mut dyn FnMut(u64, u64)| match on_device {
                    false => CausalLm::random(&config, seed, options),
                    true => CausalLm::random_on_device(&config, seed, options, &mut |p| {
                        progress(p.bytes, p.total_bytes);
                    }),
                },
            ) as Load
        };
        let loads = options.devices.iter().map(load).collect();
        Self::start(config, loads, options, progress)
    }

    fn start(
        config: &ModelConfig,
        loads: Vec<Load>,
        options: &PipelineOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, EngineError> {
        options.check(config)?;
        let stages = options.devices.len();
        let names = options.devices.iter().map(|device| format!("{device:?}"));
        let watchdog = Arc::new(Watchdog::new(names.collect(), options.stall));
        let (sender, events) = mpsc::channel();
        let (first, mut jobs) = mpsc::channel::<Job>();
        let mut threads = Vec::new();
        let parts = options.placement.parts();
        for (stage, (load, part)) in loads.into_iter().zip(parts).enumerate() {
            let device = options.devices[stage].clone();
            let load_options = LoadOptions {
                part: Some(part.clone()),
                model: options.model,
                device,
            };
            let (to_link, from_stage) = mpsc::sync_channel(WAITING);
            let (to_next, next_jobs) = mpsc::sync_channel(WAITING);
            let link = Link {
                stage,
                next: options.devices.get(stage + 1).cloned(),
                transport: options.transport,
                watchdog: watchdog.clone(),
            };
            let to_next = (stage + 1 < stages).then_some(to_next);
            let inbox = std::mem::replace(&mut jobs, next_jobs);
            threads.push(thread(format!("stage {stage}"), {
                let (watchdog, sender) = (watchdog.clone(), sender.clone());
                move || {
                    stage::run(
                        stage,
                        load,
                        &load_options,
                        &sender,
                        inbox,
                        to_link,
                        &watchdog,
                    )
                }
            })?);
            threads.push(thread(format!("link {stage}"), move || {
                link.run(from_stage, to_next.as_ref());
            })?);
        }
        drop(sender);
        let mut pipeline = Self {
            config: config.clone(),
            placement: options.placement.clone(),
            devices: options.devices.clone(),
            weights: vec![0; stages],
            model: options.model,
            chunks: options.chunks,
            dtype: DType::F32,
            first: Some(first),
            watchdog,
            threads,
            requests: AtomicU64::new(0),
        };
        pipeline.finish_loading(&events, progress)?;
        Ok(pipeline)
    }

    /// Waits until every stage is loaded, or one is not.
    fn finish_loading(
        &mut self,
        events: &mpsc::Receiver<Loading>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), EngineError> {
        let stages = self.devices.len();
        let (mut done, mut totals) = (vec![0; stages], vec![0; stages]);
        let mut ready = 0;
        while ready < stages {
            match events.recv() {
                Ok(Loading::Progress {
                    stage,
                    bytes,
                    total,
                }) => {
                    (done[stage], totals[stage]) = (bytes, total);
                    progress(done.iter().sum(), totals.iter().sum());
                }
                Ok(Loading::Ready {
                    stage,
                    weights,
                    dtype,
                }) => {
                    self.weights[stage] = weights;
                    self.dtype = dtype;
                    ready += 1;
                }
                Ok(Loading::Failed(error)) => return Err(error),
                Err(mpsc::RecvError) => {
                    return Err(self.watchdog.lost().unwrap_or_else(|| {
                        EngineError::execution("load", "the stages ended without a word")
                    }));
                }
            }
        }
        Ok(())
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The layers of every stage.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// The devices of the stages.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Bytes of the weights of each stage.
    pub fn weight_bytes(&self) -> &[u64] {
        &self.weights
    }

    /// The type of weights, hidden states and cache.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Chunks to cut a prompt into; `None` goes by its length.
    pub fn chunks(&self) -> Option<usize> {
        self.chunks
    }

    /// Makes a sequence with a cache of `capacity` tokens, allocated on every stage.
    ///
    /// # Errors
    /// [`EngineError::TooLong`] when the model has fewer positions; a stage without the memory.
    pub fn sequence(&self, capacity: usize) -> Result<Sequence<'_>, EngineError> {
        Sequence::open(Box::new(Staged::new(self)), capacity)
    }

    /// See [`crate::testing::inject`].
    pub(crate) fn inject(&self, stage: usize, fault: Fault) {
        self.watchdog.inject(stage, fault);
    }

    fn submit(&self, job: Job) -> Result<(), EngineError> {
        self.watchdog.moved();
        let sent = self.first.as_ref().map(|first| first.send(job));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(self.watchdog.lost_at(0, "its thread ended")),
        }
    }

    fn next_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for Pipeline {
    /// Ends the stages in order, which gives their memory back. A stage that stands still is left behind.
    fn drop(&mut self) {
        self.watchdog.close();
        self.first = None;
        for thread in self.threads.drain(..) {
            if self.watchdog.wait_for(&thread) {
                // Its panic was printed when it happened.
                let _ = thread.join();
            }
        }
    }
}

fn thread(
    name: String,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, EngineError> {
    std::thread::Builder::new()
        .name(name)
        .spawn(work)
        .map_err(|error| EngineError::execution("start a stage", error))
}
