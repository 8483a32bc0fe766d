//! A session: one loaded model, one KV cache, one sequence, on one device.
//!
//! Prefill runs the prompt in chunks; chunk boundaries change nothing but speed and memory. GPU
//! work is queued, so a chunk counts as done only after the device was synchronised, and time to
//! first token ends when the logits have been read back. Decode is always dense.

use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use sparse_accelerate::{AttentionSettings, KvCache};
use sparse_accelerate_checkpoint::ModelConfig;
use sparse_accelerate_models::{CausalLm, LayerObserver, Watch};

use crate::{
    cancel::Cancel,
    chunking::Chunking,
    contain::contained,
    error::EngineError,
    generate::MemoryReport,
    memory::{self, MemoryPlan, Workload},
    selection::Chunks,
    sequence::{Prefill, PrefillProgress, Sequence, density, too_many_positions},
};

/// One loaded model with the KV cache of one sequence.
#[derive(Debug)]
pub struct Session<'m> {
    pub(crate) model: &'m CausalLm,
    /// Gone after a failure of the device, until the next run.
    cache: Option<KvCache>,
    capacity: usize,
    tokens: Vec<u32>,
    cancel: Cancel,
}

impl<'m> Session<'m> {
    /// Allocates a cache of `capacity` tokens.
    ///
    /// # Errors
    /// [`EngineError::TooLong`] when the model has fewer positions; [`EngineError::Attention`] for
    /// a capacity of 0.
    pub fn new(model: &'m CausalLm, capacity: usize) -> Result<Self, EngineError> {
        let limit = model.config().max_positions;
        if capacity > limit {
            return Err(too_many_positions(capacity, 0, limit));
        }
        let cache = allocate(model, capacity)?;
        Ok(Self {
            model,
            cache: Some(cache),
            capacity,
            tokens: Vec::new(),
            cancel: Cancel::default(),
        })
    }

    /// The model.
    pub fn model(&self) -> &'m CausalLm {
        self.model
    }

    /// The device everything runs on.
    pub fn device(&self) -> &Device {
        self.model.device()
    }

    /// Runs work on the cache. Where it fails, the cache is what it was before; where the device fails, it
    /// is given up.
    pub(crate) fn with_cache<T>(
        &mut self,
        op: &'static str,
        work: impl FnOnce(&CausalLm, &mut KvCache) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let (model, held, capacity) = (self.model, self.tokens.len(), self.capacity);
        let cache = &mut self.cache;
        let result = contained(op, || {
            let cache = match cache {
                Some(cache) => cache,
                None => cache.insert(allocate(model, capacity)?),
            };
            work(model, cache)
        });
        match &result {
            Err(error) if error.is_fatal() => {
                self.cache = None;
                self.tokens.clear();
                self.model.device().memory_cleanup();
            }
            Err(_) => {
                if let Some(cache) = &mut self.cache {
                    cache.truncate(held);
                }
            }
            Ok(_) => {}
        }
        result
    }

    /// [`Sequence::prefill`] while somebody looks at every layer of every chunk, whose time counts.
    ///
    /// # Errors
    /// As [`Sequence::prefill`], and what the observer refuses.
    pub fn prefill_observed(
        &mut self,
        ids: &[u32],
        chunking: Chunking,
        settings: &AttentionSettings,
        observer: Option<&mut dyn LayerObserver>,
        progress: &mut dyn FnMut(PrefillProgress),
    ) -> Result<Prefill, EngineError> {
        self.check(ids.len(), 0)?;
        self.rewind(0)?;
        self.extend_observed(ids, chunking, settings, observer, progress)
    }

    fn extend_observed(
        &mut self,
        ids: &[u32],
        chunking: Chunking,
        settings: &AttentionSettings,
        mut observer: Option<&mut dyn LayerObserver>,
        progress: &mut dyn FnMut(PrefillProgress),
    ) -> Result<Prefill, EngineError> {
        let reused = self.tokens.len();
        let sizes = self.chunk_sizes(ids.len(), chunking)?;
        let cancel = self.cancel.clone();
        let prefill = self.with_cache("prefill", |model, cache| {
            let start = Instant::now();
            let total = ids.len();
            progress(PrefillProgress { done: 0, total });
            let mut chunks = Chunks::default();
            let (mut last, mut done) = (None, 0);
            for size in sizes {
                if cancel.is_cancelled() {
                    return Err(EngineError::Cancelled { done, total });
                }
                let watch = Watch {
                    rows: None,
                    observer: match &mut observer {
                        Some(observer) => Some(&mut **observer),
                        None => None,
                    },
                };
                let piece = &ids[done..done + size];
                let prompt = [reused + total];
                let output = model.forward_watched(&[piece], &prompt, cache, settings, watch)?;
                model
                    .device()
                    .sync()
                    .map_err(|e| EngineError::execution("prefill", e))?;
                let from = reused + done;
                last = Some(chunks.push(from..from + size, output));
                done += size;
                progress(PrefillProgress { done, total });
            }
            let hidden = last.ok_or(EngineError::EmptyPrompt)?;
            let chunks_s = start.elapsed().as_secs_f64();
            let logits = read(model.logits(hidden.clone())?)?;
            let seconds = start.elapsed().as_secs_f64();
            let (decisions, selection) = chunks.read()?;
            Ok(Prefill {
                last_hidden: read(hidden)?,
                logits,
                density: density(&decisions),
                decisions,
                selection,
                tokens: total,
                reused,
                chunks_s,
                seconds,
                busy_s: vec![seconds],
            })
        })?;
        self.tokens.extend_from_slice(ids);
        Ok(prefill)
    }
}

impl Sequence for Session<'_> {
    fn config(&self) -> &ModelConfig {
        self.model.config()
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
        self.extend_observed(ids, chunking, settings, None, progress)
    }

    fn decode(&mut self, token: u32) -> Result<Vec<f32>, EngineError> {
        let length = self.tokens.len();
        self.check(length, 1)?;
        let logits = self.with_cache("decode", |model, cache| {
            let dense = AttentionSettings::dense();
            let output = model.forward(&[&[token]], &[length + 1], cache, &dense)?;
            read(model.logits(output.last_hidden)?)
        })?;
        self.tokens.push(token);
        Ok(logits)
    }

    fn rewind(&mut self, len: usize) -> Result<(), EngineError> {
        if let Some(cache) = &mut self.cache {
            cache.truncate(len);
        }
        self.tokens.truncate(len);
        Ok(())
    }

    fn memory(
        &mut self,
        chunking: Chunking,
        settings: &AttentionSettings,
    ) -> Result<MemoryReport, EngineError> {
        let element = self.model.dtype().size();
        let workload = Workload {
            mlp_rows: self.model.mlp_rows(),
            kv: self.model.kv_type(),
            gpu: memory::is_pooled(self.device()),
            ..Workload::new(element, self.capacity, chunking.longest())
        };
        let measured = memory::measure(self.device());
        Ok(MemoryReport {
            planned: MemoryPlan::new(self.model.config(), &workload.with_attention(settings)),
            stages: vec![measured.clone()],
            measured,
        })
    }
}

/// An empty cache of one sequence, allocated when this returns and not at its first use.
pub(crate) fn allocate(model: &CausalLm, capacity: usize) -> Result<KvCache, EngineError> {
    contained("KV cache", || {
        let cache = model.cache(1, capacity)?;
        let done = model.device().sync();
        done.map_err(|error| EngineError::execution("KV cache", error))?;
        Ok(cache)
    })
}

/// One row `[1, n]` as f32 on the host; this is where a GPU's queued failures come out.
pub(crate) fn read(row: Tensor<2>) -> Result<Vec<f32>, EngineError> {
    let data = row
        .try_into_data()
        .map_err(|e| EngineError::execution("read back", e))?;
    values(data)
}

/// Data as f32. Data of a device is copied when it is looked at, and not before.
pub(crate) fn values(data: TensorData) -> Result<Vec<f32>, EngineError> {
    data.convert::<f32>()
        .try_to_vec()
        .map_err(|e| EngineError::execution("read back", format!("{e:?}")))
}
