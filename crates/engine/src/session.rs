//! A session: one loaded model, one KV cache, one sequence.
//!
//! Prefill runs the prompt in chunks; chunk boundaries change nothing but speed and memory. GPU
//! work is queued, so a chunk counts as done only after the device was synchronised, and time to
//! first token ends when the logits have been read back. Decode is always dense.

use std::time::Instant;

use burn::tensor::{Device, Tensor};
use serde::Serialize;
use sparse_accelerate::{AttentionSettings, Decision, KvCache};
use sparse_accelerate_checkpoint::ModelConfig;
use sparse_accelerate_models::{CausalLm, LayerObserver, Watch};

use crate::{
    error::EngineError,
    selection::{ChunkSelection, Chunks},
};

/// How far a prefill is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PrefillProgress {
    /// Prompt tokens computed.
    pub done: usize,
    /// Prompt tokens in all.
    pub total: usize,
}

/// What a prefill gives.
#[derive(Debug, Clone)]
pub struct Prefill {
    /// Hidden state of the last prompt token, after the final norm: `[hidden]`, as f32.
    pub last_hidden: Vec<f32>,
    /// Logits of the next token: `[vocab]`, as f32.
    pub logits: Vec<f32>,
    /// What attention did in each chunk, in order.
    pub decisions: Vec<Decision>,
    /// What the heads chose in each chunk, where they choose from the input.
    pub selection: Vec<ChunkSelection>,
    /// Share of causal (query, key) pairs computed over the whole prompt, 0 to 1.
    pub density: f64,
    /// Prompt tokens.
    pub tokens: usize,
    /// Seconds of the chunks, synchronised.
    pub chunks_s: f64,
    /// Seconds from the start until the logits were on the host.
    pub seconds: f64,
}

/// One loaded model with the KV cache of one sequence.
#[derive(Debug)]
pub struct Session<'m> {
    pub(crate) model: &'m CausalLm,
    pub(crate) cache: KvCache,
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
        let cache = model.cache(1, capacity)?;
        Ok(Self { model, cache })
    }

    /// The model.
    pub fn model(&self) -> &'m CausalLm {
        self.model
    }

    /// The device everything runs on.
    pub fn device(&self) -> &Device {
        self.model.device()
    }

    /// Tokens in the cache.
    pub fn len(&self) -> usize {
        self.cache.lens().first().copied().unwrap_or(0)
    }

    /// Whether the cache holds nothing yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens the cache can hold.
    pub fn capacity(&self) -> usize {
        self.cache.capacity()
    }

    /// Checks a prompt and the new tokens wanted after it against model and cache.
    ///
    /// # Errors
    /// [`EngineError::EmptyPrompt`], [`EngineError::TooLong`].
    pub fn check(&self, prompt: usize, max_tokens: usize) -> Result<(), EngineError> {
        check_length(self.model.config(), prompt, max_tokens)?;
        let needed = prompt.saturating_add(max_tokens);
        if needed > self.capacity() {
            return Err(EngineError::TooLong {
                prompt,
                max_tokens,
                what: "the KV cache's capacity",
                limit: self.capacity(),
                hint: "make a session with a larger capacity",
            });
        }
        Ok(())
    }

    /// Runs a prompt through the model, from an empty cache, `chunk` tokens at a time.
    ///
    /// # Errors
    /// What [`Session::check`] refuses, [`EngineError::EmptyChunk`], attention settings that have
    /// no plan, and failures of the device.
    pub fn prefill(
        &mut self,
        ids: &[u32],
        chunk: usize,
        settings: &AttentionSettings,
        progress: &mut dyn FnMut(PrefillProgress),
    ) -> Result<Prefill, EngineError> {
        self.prefill_observed(ids, chunk, settings, None, progress)
    }

    /// [`Session::prefill`] while somebody looks at every layer of every chunk, whose time counts.
    ///
    /// # Errors
    /// As [`Session::prefill`], and what the observer refuses.
    pub fn prefill_observed(
        &mut self,
        ids: &[u32],
        chunk: usize,
        settings: &AttentionSettings,
        observer: Option<&mut dyn LayerObserver>,
        progress: &mut dyn FnMut(PrefillProgress),
    ) -> Result<Prefill, EngineError> {
        self.check(ids.len(), 0)?;
        if chunk == 0 {
            return Err(EngineError::EmptyChunk);
        }
        self.cache.clear();
        let prefill = self.prefill_chunks(ids, chunk, settings, observer, progress);
        if prefill.is_err() {
            // Half a prompt is no state to decode from.
            self.cache.clear();
        }
        prefill
    }

    fn prefill_chunks(
        &mut self,
        ids: &[u32],
        chunk: usize,
        settings: &AttentionSettings,
        mut observer: Option<&mut dyn LayerObserver>,
        progress: &mut dyn FnMut(PrefillProgress),
    ) -> Result<Prefill, EngineError> {
        let start = Instant::now();
        let total = ids.len();
        progress(PrefillProgress { done: 0, total });
        let mut chunks = Chunks::default();
        let mut last = None;
        for piece in ids.chunks(chunk) {
            let watch = Watch {
                rows: None,
                observer: match &mut observer {
                    Some(observer) => Some(&mut **observer),
                    None => None,
                },
            };
            let from = self.len();
            let cache = &mut self.cache;
            let output = self
                .model
                .forward_watched(&[piece], &[total], cache, settings, watch)?;
            self.device()
                .sync()
                .map_err(|e| EngineError::execution("prefill", e))?;
            last = Some(chunks.push(from..from + piece.len(), output));
            progress(PrefillProgress {
                done: self.len(),
                total,
            });
        }
        let hidden = last.ok_or(EngineError::EmptyPrompt)?;
        let chunks_s = start.elapsed().as_secs_f64();
        let logits = read(self.model.logits(hidden.clone())?)?;
        let seconds = start.elapsed().as_secs_f64();
        let (decisions, selection) = chunks.read()?;
        Ok(Prefill {
            last_hidden: read(hidden)?,
            logits,
            density: density(&decisions),
            decisions,
            selection,
            tokens: total,
            chunks_s,
            seconds,
        })
    }

    /// Forgets what comes after the first `len` tokens, so that decoding can begin there again.
    pub fn rewind(&mut self, len: usize) {
        self.cache.truncate(len);
    }

    /// Appends one token and gives the logits of the next: `[vocab]`, as f32. Dense attention over
    /// the whole cache.
    ///
    /// # Errors
    /// [`EngineError::EmptyPrompt`] before a prefill, [`EngineError::TooLong`] when the cache is
    /// full, and failures of the device.
    pub fn decode(&mut self, token: u32) -> Result<Vec<f32>, EngineError> {
        let length = self.len();
        self.check(length, 1)?;
        let output = self.model.forward(
            &[&[token]],
            &[length + 1],
            &mut self.cache,
            &AttentionSettings::dense(),
        )?;
        read(self.model.logits(output.last_hidden)?)
    }
}

/// Checks a prompt and the new tokens wanted after it against the model's positions, which can be
/// done before anything is loaded.
///
/// # Errors
/// [`EngineError::EmptyPrompt`], [`EngineError::TooLong`].
pub fn check_length(
    config: &ModelConfig,
    prompt: usize,
    max_tokens: usize,
) -> Result<(), EngineError> {
    if prompt == 0 {
        return Err(EngineError::EmptyPrompt);
    }
    if prompt.saturating_add(max_tokens) > config.max_positions {
        return Err(too_many_positions(prompt, max_tokens, config.max_positions));
    }
    Ok(())
}

fn too_many_positions(prompt: usize, max_tokens: usize, limit: usize) -> EngineError {
    EngineError::TooLong {
        prompt,
        max_tokens,
        what: "the number of positions this model has",
        limit,
        hint: "shorten the prompt or ask for fewer new tokens",
    }
}

/// One row `[1, n]` as f32 on the host; this is where a GPU's queued failures come out.
fn read(row: Tensor<2>) -> Result<Vec<f32>, EngineError> {
    let data = row
        .try_into_data()
        .map_err(|e| EngineError::execution("read back", e))?;
    data.convert::<f32>()
        .try_to_vec()
        .map_err(|e| EngineError::execution("read back", format!("{e:?}")))
}

/// Mean density of the chunks, weighted by their causal pairs.
pub(crate) fn density(decisions: &[Decision]) -> f64 {
    let all: f64 = decisions.iter().map(|d| d.causal_pairs as f64).sum();
    let kept: f64 = decisions
        .iter()
        .map(|d| d.density * d.causal_pairs as f64)
        .sum();
    if all > 0.0 { kept / all } else { 1.0 }
}
