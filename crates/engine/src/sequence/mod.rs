//! One sequence of tokens with its KV cache, on one device or on the stages of a pipeline.
//!
//! Everything that runs tokens (a prompt, a further turn, one new token, a text to score) goes through one
//! loop over chunks. Chunk boundaries change nothing but speed and memory, except where every layer has a window and
//! a pattern names keys by their place: places are counted from the first key that is held. A run may be cancelled between
//! chunks; a run that fails leaves the tokens that were held before, or none where the device failed or layers with a window have let go
//! of keys that they need.

mod length;
mod results;
mod selection;

use std::{ops::Range, sync::Arc, time::Instant};

use sparse_accelerate::AttentionSettings;
use sparse_accelerate_checkpoint::ModelConfig;
use sparse_accelerate_models::{CausalLm, LayerObserver, ModelError};

use crate::{
    cancel::Cancel,
    chunking::Chunking,
    error::EngineError,
    memory::{MemoryPlan, MemoryReport},
    runner::{Answer, Chunk, Computed, Divergence, OneDevice, Runner, States, Wanted},
};

pub use length::check_length;
pub use results::{Prefill, PrefillProgress, Scored};
pub use selection::ChunkSelection;

use length::too_many_positions;
use selection::{Decisions, density};

/// One sequence with its KV cache.
///
/// [`Sequence::new`] makes one of a model on one device, [`Pipeline::sequence`](crate::Pipeline::sequence)
/// one on the stages of a pipeline, [`Loaded::sequence`](crate::Loaded::sequence) either. They compute the
/// same, operation by operation. Dropping it gives its cache back.
#[derive(Debug)]
pub struct Sequence<'m> {
    runner: Box<dyn Runner + Send + 'm>,
    capacity: usize,
    tokens: Vec<u32>,
    cancel: Cancel,
}

/// New tokens and the way to run them.
struct Run<'a> {
    /// Name of the work in errors.
    op: &'static str,
    ids: &'a [u32],
    /// Lengths of the chunks; together all of `ids`.
    sizes: &'a [usize],
    settings: &'a AttentionSettings,
    /// Results wanted of a chunk, by its range of `ids`.
    wanted: &'a dyn Fn(&Range<usize>) -> Wanted<'a>,
    observer: Option<&'a mut dyn LayerObserver>,
    /// Ends at the next chunk when the sequence is cancelled.
    cancellable: bool,
}

impl<'m> Sequence<'m> {
    /// Makes a sequence of a model on one device and allocates its cache of `capacity` tokens.
    ///
    /// # Errors
    /// [`EngineError::TooLong`] when the model has fewer positions; [`EngineError::Attention`] for
    /// a capacity of 0.
    pub fn new(model: &'m CausalLm, capacity: usize) -> Result<Self, EngineError> {
        Self::open(Box::new(OneDevice::new(model)), capacity)
    }

    /// Makes a sequence on a runner and allocates its cache of `capacity` tokens.
    pub(crate) fn open(
        mut runner: Box<dyn Runner + Send + 'm>,
        capacity: usize,
    ) -> Result<Self, EngineError> {
        let limit = runner.config().max_positions;
        if capacity > limit {
            return Err(too_many_positions(capacity, 0, limit));
        }
        runner.open(capacity)?;
        Ok(Self {
            runner,
            capacity,
            tokens: Vec::new(),
            cancel: Cancel::default(),
        })
    }

    /// Shares a cancel flag, so that one flag ends several sequences.
    #[must_use]
    pub fn with_cancel(self, cancel: Cancel) -> Self {
        Self { cancel, ..self }
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        self.runner.config()
    }

    /// Tokens the cache can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The tokens in the cache.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The flag that ends a prefill, an extension or a score at its next chunk; the run then returns
    /// [`EngineError::Cancelled`]. [`generate`](crate::generate) looks at it before every token.
    pub fn cancel(&self) -> Cancel {
        self.cancel.clone()
    }

    /// Checks a prompt and the new tokens wanted after it against model and cache.
    ///
    /// # Errors
    /// [`EngineError::EmptyPrompt`], [`EngineError::TooLong`].
    pub fn check(&self, prompt: usize, max_tokens: usize) -> Result<(), EngineError> {
        check_length(self.config(), prompt, max_tokens)?;
        let needed = prompt.saturating_add(max_tokens);
        if needed > self.capacity {
            return Err(EngineError::TooLong {
                prompt,
                max_tokens,
                what: "the KV cache's capacity",
                limit: self.capacity,
                hint: "make a sequence with a larger capacity",
            });
        }
        Ok(())
    }

    /// Runs a prompt through the model from an empty cache.
    ///
    /// # Errors
    /// As [`Sequence::extend`].
    pub fn prefill(
        &mut self,
        ids: &[u32],
        chunking: Chunking,
        settings: &AttentionSettings,
        progress: &mut dyn FnMut(PrefillProgress),
    ) -> Result<Prefill, EngineError> {
        self.prefill_observed(ids, chunking, settings, None, progress)
    }

    /// Runs a prompt as [`Sequence::prefill`] while an observer sees every layer of every chunk. The
    /// observer's time counts.
    ///
    /// # Errors
    /// As [`Sequence::extend`], errors of the observer, [`EngineError::Staged`] for an observer of a model in
    /// stages, and [`EngineError::HiddenKeys`] for one of layers that let go of keys.
    pub fn prefill_observed(
        &mut self,
        ids: &[u32],
        chunking: Chunking,
        settings: &AttentionSettings,
        observer: Option<&mut dyn LayerObserver>,
        progress: &mut dyn FnMut(PrefillProgress),
    ) -> Result<Prefill, EngineError> {
        self.check(ids.len(), 0)?;
        if observer.is_some() {
            self.runner.check_whole()?;
            let windows = self.config().windows().into_iter();
            if let Some(window) = windows.filter(|&window| window < ids.len()).min() {
                return Err(EngineError::HiddenKeys {
                    tokens: ids.len(),
                    window,
                });
            }
        }
        self.rewind(0)?;
        self.extend_observed(ids, chunking, settings, observer, progress)
    }

    /// Runs a prompt through the model, without the tokens it has in common with those in the cache from
    /// their beginning: a further turn of a conversation, another question about the same document.
    ///
    /// Reused keys and values were computed as part of the prompt they came with: rows that saw everything
    /// because they were that prompt's last are kept so. New rows attend to all keys, old and new, as the
    /// settings say, and recall is measured over all of them.
    ///
    /// # Errors
    /// As [`Sequence::extend`].
    pub fn resume(
        &mut self,
        ids: &[u32],
        chunking: Chunking,
        settings: &AttentionSettings,
        progress: &mut dyn FnMut(PrefillProgress),
    ) -> Result<Prefill, EngineError> {
        self.check(ids.len(), 0)?;
        let held = self.tokens.iter().zip(ids);
        let common = held.take_while(|(a, b)| a == b).count();
        // The last token is computed in any case: it has the logits.
        let reused = common.min(ids.len() - 1);
        let reused = self.rewind(reused)?;
        self.extend(&ids[reused..], chunking, settings, progress)
    }

    /// Runs tokens through the model after those that the cache holds. A failure leaves the tokens that were
    /// held before, or none where the device failed.
    ///
    /// # Errors
    /// [`EngineError::EmptyPrompt`], [`EngineError::TooLong`], [`EngineError::EmptyChunk`], a token outside
    /// the vocabulary, attention settings that have no plan, [`EngineError::Cancelled`], and failures of the
    /// device.
    pub fn extend(
        &mut self,
        ids: &[u32],
        chunking: Chunking,
        settings: &AttentionSettings,
        progress: &mut dyn FnMut(PrefillProgress),
    ) -> Result<Prefill, EngineError> {
        self.extend_observed(ids, chunking, settings, None, progress)
    }

    fn extend_observed(
        &mut self,
        ids: &[u32],
        chunking: Chunking,
        settings: &AttentionSettings,
        observer: Option<&mut dyn LayerObserver>,
        progress: &mut dyn FnMut(PrefillProgress),
    ) -> Result<Prefill, EngineError> {
        let sizes = self.chunk_sizes(ids, chunking)?;
        let start = Instant::now();
        let (reused, total) = (self.tokens.len(), ids.len());
        progress(PrefillProgress { done: 0, total });
        let mut chunks = Decisions::default();
        let mut busy_s = vec![0.0; self.runner.placement().parts().len()];
        let (mut logits, mut last_hidden) = (Vec::new(), Vec::new());
        let run = Run {
            op: "prefill",
            ids,
            sizes: &sizes,
            settings,
            wanted: &|chunk| match chunk.end == total {
                true => Wanted::LogitsAndHidden,
                false => Wanted::Nothing,
            },
            // Not a plain move: a trait object's lifetime is shortened only where it is coerced.
            observer: match observer {
                Some(observer) => Some(observer),
                None => None,
            },
            cancellable: true,
        };
        self.run(run, &mut |chunk, computed| {
            let tokens = reused + chunk.start..reused + chunk.end;
            chunks.keep(tokens, computed.decision, computed.selection);
            for (sum, busy) in busy_s.iter_mut().zip(&computed.busy_s) {
                *sum += busy;
            }
            (logits, last_hidden) = (computed.logits, computed.last_hidden);
            progress(PrefillProgress {
                done: chunk.end,
                total,
            });
        })?;
        let seconds = start.elapsed().as_secs_f64();
        let (decisions, selection) = chunks.read()?;
        Ok(Prefill {
            last_hidden,
            logits,
            density: density(&decisions),
            decisions,
            selection,
            tokens: total,
            reused,
            seconds,
            busy_s,
        })
    }

    /// Appends one token and gives the logits of the next: `[vocab]`, as f32. Dense attention over
    /// the whole cache.
    ///
    /// # Errors
    /// [`EngineError::EmptyPrompt`] before a prefill, [`EngineError::TooLong`] when the cache is
    /// full, and failures of the device.
    pub fn decode(&mut self, token: u32) -> Result<Vec<f32>, EngineError> {
        self.check(self.tokens.len(), 1)?;
        let mut logits = Vec::new();
        let run = Run {
            op: "decode",
            ids: &[token],
            sizes: &[1],
            settings: &AttentionSettings::dense(),
            wanted: &|_| Wanted::Logits,
            observer: None,
            cancellable: false,
        };
        self.run(run, &mut |_, computed| logits = computed.logits)?;
        Ok(logits)
    }

    /// Runs a text from an empty cache and scores its last `scored` tokens: row `i` predicts token `i + 1`.
    /// The settings rule every row, the scored ones too. Leaves the cache empty.
    ///
    /// # Errors
    /// As [`Sequence::extend`], [`EngineError::Scored`], and [`EngineError::Staged`] for a model in stages.
    pub fn score(
        &mut self,
        ids: &[u32],
        scored: usize,
        chunking: Chunking,
        settings: &AttentionSettings,
        progress: &mut dyn FnMut(PrefillProgress),
    ) -> Result<Scored, EngineError> {
        self.runner.check_whole()?;
        self.check(ids.len(), 0)?;
        let total = ids.len();
        if scored == 0 || scored >= total {
            return Err(EngineError::Scored {
                scored,
                tokens: total,
            });
        }
        chunking.sizes(0, total)?;
        self.rewind(0)?;
        let sizes = self.chunk_sizes(ids, chunking)?;
        let start = Instant::now();
        progress(PrefillProgress { done: 0, total });
        let first = total - scored - 1;
        let (mut chunks, mut nll) = (Decisions::default(), Vec::with_capacity(scored));
        let mut states = States::default();
        let run = Run {
            op: "score",
            ids,
            sizes: &sizes,
            settings,
            wanted: &|chunk| {
                let (from, to) = (chunk.start.max(first), chunk.end.min(total - 1));
                match from < to {
                    true => Wanted::Scores {
                        rows: from - chunk.start..to - chunk.start,
                        targets: &ids[from + 1..to + 1],
                    },
                    false => Wanted::Nothing,
                }
            },
            observer: None,
            cancellable: true,
        };
        self.run(run, &mut |chunk, computed| {
            chunks.keep(chunk.clone(), computed.decision, computed.selection);
            nll.extend(computed.nll);
            states.extend(computed.states);
            progress(PrefillProgress {
                done: chunk.end,
                total,
            });
        })?;
        // Nothing is decoded after a text.
        self.rewind(0)?;
        let seconds = start.elapsed().as_secs_f64();
        let (decisions, selection) = chunks.read()?;
        Ok(Scored {
            nll,
            states,
            density: density(&decisions),
            decisions,
            selection,
            seconds,
        })
    }

    /// Compares two runs of [`Sequence::score`] over the same text: the distributions before each scored token.
    ///
    /// # Errors
    /// [`EngineError::Execution`] for different numbers of scored tokens, and failures of the device.
    pub fn diverge(&self, reference: &Scored, other: &Scored) -> Result<Divergence, EngineError> {
        self.runner.diverge(&reference.states, &other.states)
    }

    /// Forgets the tokens after the first `len`, so that another text can follow them. Gives the number of tokens that are held then:
    /// `len`, or none where layers with a window have let go of keys that the next token sees, which they keep for the last 128
    /// tokens only.
    ///
    /// # Errors
    /// A device that failed; all tokens are lost then.
    pub fn rewind(&mut self, len: usize) -> Result<usize, EngineError> {
        if len >= self.tokens.len() {
            return Ok(self.tokens.len());
        }
        let rewound = self.runner.rewind(len);
        self.tokens.truncate(*rewound.as_ref().unwrap_or(&0));
        rewound
    }

    /// Plans the memory of a prompt of the cache's capacity, and measures the peak so far.
    ///
    /// # Errors
    /// A stage that does not answer.
    pub fn memory(
        &mut self,
        chunking: Chunking,
        settings: &AttentionSettings,
    ) -> Result<MemoryReport, EngineError> {
        let footprint = self.runner.footprint();
        let workload = footprint.workload(self.capacity, chunking.longest(), &[settings]);
        let placement = self.runner.placement();
        let planned = MemoryPlan::placed(self.runner.config(), &placement, &workload);
        let (measured, stages) = self.runner.measure()?;
        Ok(MemoryReport {
            planned,
            measured,
            stages,
        })
    }

    /// Checks tokens that are to follow those in the cache, and gives the lengths of their chunks.
    fn chunk_sizes(&self, ids: &[u32], chunking: Chunking) -> Result<Vec<usize>, EngineError> {
        let held = self.tokens.len();
        if ids.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        self.check(held + ids.len(), 0)?;
        // The model would refuse it too, but after the chunks before.
        let vocab = self.config().vocab_size;
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocab) {
            return Err(ModelError::TokenOutOfRange { id, vocab }.into());
        }
        chunking.sizes(held, ids.len())
    }

    /// Runs new tokens, gives the results of each chunk to `take` in order, and appends the tokens. Brings
    /// the sequence back to the tokens it held where that fails.
    fn run(
        &mut self,
        run: Run<'_>,
        take: &mut dyn FnMut(Range<usize>, Computed),
    ) -> Result<(), EngineError> {
        let ids = run.ids;
        let done = self.run_chunks(run, take);
        match &done {
            Ok(()) => self.tokens.extend_from_slice(ids),
            Err(error) => {
                if !self.runner.recover(error, self.tokens.len()) {
                    self.tokens.clear();
                }
            }
        }
        done
    }

    /// The loop over chunks: sends as many at a time as the runner takes.
    fn run_chunks(
        &mut self,
        mut run: Run<'_>,
        take: &mut dyn FnMut(Range<usize>, Computed),
    ) -> Result<(), EngineError> {
        self.runner.open(self.capacity)?;
        let settings = Arc::new(run.settings.clone());
        let prompt = self.tokens.len() + run.ids.len();
        let (chunks, window) = (run.sizes.len(), self.runner.window());
        // Chunks sent and answered, and the first tokens of the next of each.
        let (mut sent, mut answered) = (0, 0);
        let (mut send_at, mut take_at) = (0, 0);
        let mut failed = None;
        loop {
            let cancelled = run.cancellable && self.cancel.is_cancelled();
            if cancelled && failed.is_none() && answered < chunks {
                self.runner.stop();
                failed = Some(EngineError::Cancelled {
                    done: take_at,
                    total: run.ids.len(),
                });
            }
            while failed.is_none() && sent < chunks && sent - answered < window {
                let range = send_at..send_at + run.sizes[sent];
                let begun = self.runner.send(Chunk {
                    op: run.op,
                    ids: &run.ids[range.clone()],
                    prompt,
                    settings: &settings,
                    wanted: (run.wanted)(&range),
                    observer: match &mut run.observer {
                        Some(observer) => Some(&mut **observer),
                        None => None,
                    },
                });
                match begun {
                    Ok(()) => (sent, send_at) = (sent + 1, range.end),
                    // What was sent before is answered first, or the next run would read those answers.
                    Err(error) => {
                        self.runner.stop();
                        failed = Some(error);
                    }
                }
            }
            if answered == sent {
                return failed.map_or(Ok(()), Err);
            }
            match self.runner.receive()? {
                Answer::Computed(computed) => {
                    let range = take_at..take_at + run.sizes[answered];
                    take_at = range.end;
                    take(range, *computed);
                }
                Answer::Failed(error) => {
                    failed.get_or_insert(error);
                }
                Answer::Skipped => {}
            }
            answered += 1;
        }
    }
}
