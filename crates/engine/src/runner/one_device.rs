//! A whole model on one device, in the caller's thread.
//!
//! GPU work is queued, so a chunk counts as computed only after the device was synchronised or its results
//! were read back.

use std::time::Instant;

use burn::tensor::{Tensor, TensorData};
use sparse_accelerate::KvCache;
use sparse_accelerate_checkpoint::ModelConfig;
use sparse_accelerate_models::{CausalLm, Placement, Watch};

use super::{Answer, Chunk, Computed, Divergence, Runner, States, Wanted, score};
use crate::{
    contain::contained,
    error::EngineError,
    memory::{self, Footprint, MeasuredMemory},
};

/// A model on one device with the cache of one sequence.
#[derive(Debug)]
pub(crate) struct OneDevice<'m> {
    model: &'m CausalLm,
    /// Gone after a failure of the device, until the next run.
    cache: Option<KvCache>,
    /// The chunk that was sent and not received.
    computed: Option<Box<Computed>>,
}

impl<'m> OneDevice<'m> {
    pub(crate) fn new(model: &'m CausalLm) -> Self {
        Self {
            model,
            cache: None,
            computed: None,
        }
    }
}

impl Runner for OneDevice<'_> {
    fn config(&self) -> &ModelConfig {
        self.model.config()
    }

    fn placement(&self) -> Placement {
        Placement::whole(self.model.config().layers)
    }

    fn footprint(&self) -> Footprint {
        let gpu = memory::is_pooled(self.model.device());
        Footprint::new(self.model.dtype().size(), self.model.options(), gpu)
    }

    fn check_whole(&self) -> Result<(), EngineError> {
        Ok(())
    }

    fn window(&self) -> usize {
        1
    }

    fn open(&mut self, capacity: usize) -> Result<(), EngineError> {
        if self.cache.is_none() {
            self.cache = Some(allocate(self.model, capacity)?);
        }
        Ok(())
    }

    fn send(&mut self, chunk: Chunk<'_>) -> Result<(), EngineError> {
        let (model, op) = (self.model, chunk.op);
        let cache = self.cache.as_mut();
        let cache = cache.ok_or_else(|| EngineError::execution(op, "the sequence has no cache"))?;
        let computed = contained(op, || compute(model, cache, chunk))?;
        self.computed = Some(Box::new(computed));
        Ok(())
    }

    fn receive(&mut self) -> Result<Answer, EngineError> {
        let computed = self.computed.take().map(Answer::Computed);
        computed.ok_or_else(|| EngineError::execution("prefill", "no chunk was sent"))
    }

    /// Nothing waits here: a chunk is computed when it is sent.
    fn stop(&mut self) {}

    fn rewind(&mut self, len: usize) -> Result<usize, EngineError> {
        let cache = self.cache.as_mut();
        Ok(match cache.is_none_or(|cache| cache.truncate(len)) {
            true => len,
            false => 0,
        })
    }

    fn recover(&mut self, error: &EngineError, held: usize) -> bool {
        self.computed = None;
        if error.is_fatal() {
            self.cache = None;
            self.model.device().memory_cleanup();
            return false;
        }
        let cache = self.cache.as_mut();
        cache.is_none_or(|cache| cache.truncate(held))
    }

    fn diverge(&self, reference: &States, other: &States) -> Result<Divergence, EngineError> {
        contained("divergence", || {
            score::diverge(self.model, reference, other)
        })
    }

    fn measure(&mut self) -> Result<(MeasuredMemory, Vec<MeasuredMemory>), EngineError> {
        let measured = memory::measure(self.model.device());
        Ok((measured.clone(), vec![measured]))
    }
}

/// Computes a chunk and reads back the results that are wanted of it.
fn compute(
    model: &CausalLm,
    cache: &mut KvCache,
    chunk: Chunk<'_>,
) -> Result<Computed, EngineError> {
    let start = Instant::now();
    let watch = Watch {
        rows: match &chunk.wanted {
            Wanted::Scores { rows, .. } => Some(rows.clone()),
            _ => None,
        },
        observer: chunk.observer,
    };
    let output =
        model.forward_watched(&[chunk.ids], &[chunk.prompt], cache, chunk.settings, watch)?;
    let hidden = output.last_hidden;
    let mut computed = Computed {
        last_hidden: Vec::new(),
        logits: Vec::new(),
        nll: Vec::new(),
        states: None,
        decision: output.decision,
        selection: output.selection,
        busy_s: Vec::new(),
    };
    match chunk.wanted {
        Wanted::Nothing => {
            let done = model.device().sync();
            done.map_err(|error| EngineError::execution(chunk.op, error))?;
        }
        Wanted::Logits => computed.logits = read(model.logits(hidden)?)?,
        Wanted::LogitsAndHidden => {
            computed.logits = read(model.logits(hidden.clone())?)?;
            computed.last_hidden = read(hidden)?;
        }
        Wanted::Scores { targets, .. } => {
            computed.nll = score::negative_log_likelihoods(model, hidden.clone(), targets)?;
            computed.states = Some(hidden);
        }
    }
    computed.busy_s.push(start.elapsed().as_secs_f64());
    Ok(computed)
}

/// Allocates an empty cache of one sequence; the memory is taken when this returns and not at first use.
pub(crate) fn allocate(model: &CausalLm, capacity: usize) -> Result<KvCache, EngineError> {
    contained("KV cache", || {
        let cache = model.cache(1, capacity)?;
        let done = model.device().sync();
        done.map_err(|error| EngineError::execution("KV cache", error))?;
        Ok(cache)
    })
}

/// Reads one row `[1, n]` to the host as f32; failures of a GPU's queued work come out here.
pub(crate) fn read(row: Tensor<2>) -> Result<Vec<f32>, EngineError> {
    let data = row
        .try_into_data()
        .map_err(|e| EngineError::execution("read back", e))?;
    values(data)
}

/// Gives data as f32. Data of a device is copied when it is looked at, and not before.
pub(crate) fn values(data: TensorData) -> Result<Vec<f32>, EngineError> {
    data.convert::<f32>()
        .try_to_vec()
        .map_err(|e| EngineError::execution("read back", format!("{e:?}")))
}
