//! One sequence and its KV cache, on one device or on several: what generation and measurements need.
//!
//! [`crate::Session`] is one on one device, in the caller's thread; [`crate::PipelineSession`] is one on the
//! stages of a [`crate::Pipeline`]. They compute the same, operation by operation.

use serde::Serialize;
use sparse_accelerate::{AttentionSettings, Decision};
use sparse_accelerate_checkpoint::ModelConfig;

use crate::{
    cancel::Cancel, chunking::Chunking, error::EngineError, generate::MemoryReport,
    selection::ChunkSelection,
};

/// How far a prefill is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PrefillProgress {
    /// Prompt tokens computed.
    pub done: usize,
    /// Prompt tokens to compute.
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
    /// Share of causal (query, key) pairs computed over the chunks, 0 to 1.
    pub density: f64,
    /// Prompt tokens computed.
    pub tokens: usize,
    /// Prompt tokens that the cache held already.
    pub reused: usize,
    /// Seconds of the chunks, synchronised.
    pub chunks_s: f64,
    /// Seconds from the start until the logits were on the host.
    pub seconds: f64,
    /// Seconds in which each stage had work, in order; one stage is busy all the time.
    pub busy_s: Vec<f64>,
}

/// One sequence with its KV cache.
pub trait Sequence {
    /// The model's configuration.
    fn config(&self) -> &ModelConfig;

    /// Tokens the cache can hold.
    fn capacity(&self) -> usize;

    /// The tokens in the cache.
    fn tokens(&self) -> &[u32];

    /// Ends what runs here when it is asked to; the run returns [`EngineError::Cancelled`].
    fn cancel(&self) -> Cancel;

    /// Runs tokens through the model after those that the cache holds. A failure leaves what was held
    /// before, or nothing where the device failed.
    ///
    /// # Errors
    /// [`EngineError::EmptyPrompt`], [`EngineError::TooLong`], [`EngineError::EmptyChunk`], attention
    /// settings that have no plan, [`EngineError::Cancelled`], and failures of the device.
    fn extend(
        &mut self,
        ids: &[u32],
        chunking: Chunking,
        settings: &AttentionSettings,
        progress: &mut dyn FnMut(PrefillProgress),
    ) -> Result<Prefill, EngineError>;

    /// Appends one token and gives the logits of the next: `[vocab]`, as f32. Dense attention over
    /// the whole cache.
    ///
    /// # Errors
    /// [`EngineError::EmptyPrompt`] before a prefill, [`EngineError::TooLong`] when the cache is
    /// full, and failures of the device.
    fn decode(&mut self, token: u32) -> Result<Vec<f32>, EngineError>;

    /// Forgets what comes after the first `len` tokens, so that another text can follow them.
    ///
    /// # Errors
    /// A device that failed.
    fn rewind(&mut self, len: usize) -> Result<(), EngineError>;

    /// Memory planned for a prompt of the cache's capacity, and the peak so far.
    ///
    /// # Errors
    /// A stage that does not answer.
    fn memory(
        &mut self,
        chunking: Chunking,
        settings: &AttentionSettings,
    ) -> Result<MemoryReport, EngineError>;

    /// Checks a prompt and the new tokens wanted after it against model and cache.
    ///
    /// # Errors
    /// [`EngineError::EmptyPrompt`], [`EngineError::TooLong`].
    fn check(&self, prompt: usize, max_tokens: usize) -> Result<(), EngineError> {
        check_length(self.config(), prompt, max_tokens)?;
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

    /// Lengths of the chunks of tokens that are to follow those in the cache, checked.
    ///
    /// # Errors
    /// [`EngineError::EmptyPrompt`], [`EngineError::TooLong`], [`EngineError::EmptyChunk`].
    fn chunk_sizes(&self, new: usize, chunking: Chunking) -> Result<Vec<usize>, EngineError> {
        let held = self.tokens().len();
        if new == 0 {
            return Err(EngineError::EmptyPrompt);
        }
        self.check(held + new, 0)?;
        chunking.sizes(held, new)
    }

    /// Runs a prompt through the model from an empty cache.
    ///
    /// # Errors
    /// As [`Sequence::extend`].
    fn prefill(
        &mut self,
        ids: &[u32],
        chunking: Chunking,
        settings: &AttentionSettings,
        progress: &mut dyn FnMut(PrefillProgress),
    ) -> Result<Prefill, EngineError> {
        self.check(ids.len(), 0)?;
        self.rewind(0)?;
        self.extend(ids, chunking, settings, progress)
    }

    /// Runs a prompt through the model, without what it has in common with the tokens in the cache from
    /// their beginning: a further turn of a conversation, another question about the same document.
    ///
    /// What is reused was computed as part of the prompt it came with: rows that saw everything because
    /// they were that prompt's last are kept so. New rows attend to all keys, old and new, as the settings
    /// say, and recall is measured over all of them.
    ///
    /// # Errors
    /// As [`Sequence::extend`].
    fn resume(
        &mut self,
        ids: &[u32],
        chunking: Chunking,
        settings: &AttentionSettings,
        progress: &mut dyn FnMut(PrefillProgress),
    ) -> Result<Prefill, EngineError> {
        self.check(ids.len(), 0)?;
        let held = self.tokens();
        let common = held.iter().zip(ids).take_while(|(a, b)| a == b).count();
        // The last token is computed in any case: it has the logits.
        let reused = common.min(ids.len() - 1);
        self.rewind(reused)?;
        self.extend(&ids[reused..], chunking, settings, progress)
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

pub(crate) fn too_many_positions(prompt: usize, max_tokens: usize, limit: usize) -> EngineError {
    EngineError::TooLong {
        prompt,
        max_tokens,
        what: "the number of positions this model has",
        limit,
        hint: "shorten the prompt or ask for fewer new tokens",
    }
}

/// Mean density of the chunks, weighted by their causal pairs.
pub(crate) fn density(decisions: &[Decision]) -> f64 {
    let known = decisions
        .iter()
        .filter_map(|d| Some((d.density?, d.causal_pairs as f64)));
    let (kept, all) = known.fold((0.0, 0.0), |(kept, all), (density, pairs)| {
        (kept + density * pairs, all + pairs)
    });
    if all > 0.0 { kept / all } else { 1.0 }
}
