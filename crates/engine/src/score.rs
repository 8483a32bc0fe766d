//! Log-likelihoods of a text's last tokens, for perplexity.
//!
//! Row `i` predicts token `i + 1`. Logits are made a few rows at a time, widened to f32 and reduced to
//! one number a row on the device, so `[rows, vocab]` is never whole. The attention settings rule
//! every row, the scored ones too.

use std::time::Instant;

use burn::tensor::{DType, Int, Tensor, TensorData};
use sparse_accelerate::{AttentionSettings, Decision, KvCache};
use sparse_accelerate_models::{CausalLm, Watch};

use crate::{
    error::EngineError,
    selection::{ChunkSelection, Chunks},
    sequence::{PrefillProgress, Sequence, density},
    session::Session,
};

/// Logits on the device at a time, elements: 64 MiB in f32.
const LOGITS: usize = 1 << 24;

/// What the last tokens of a text cost.
#[derive(Debug, Clone)]
pub struct Scored {
    /// Negative log-likelihood of each scored token, nats, in order.
    pub nll: Vec<f32>,
    /// What attention did in each chunk, in order.
    pub decisions: Vec<Decision>,
    /// What the heads chose in each chunk, where they choose from the input.
    pub selection: Vec<ChunkSelection>,
    /// Share of causal (query, key) pairs computed over the whole text, 0 to 1.
    pub density: f64,
    /// Seconds.
    pub seconds: f64,
}

impl Session<'_> {
    /// Runs a text from an empty cache and scores its last `scored` tokens.
    ///
    /// # Errors
    /// What [`Sequence::prefill`] refuses, and [`EngineError::Scored`].
    pub fn score(
        &mut self,
        ids: &[u32],
        scored: usize,
        chunk: usize,
        settings: &AttentionSettings,
        progress: &mut dyn FnMut(PrefillProgress),
    ) -> Result<Scored, EngineError> {
        self.check(ids.len(), 0)?;
        if chunk == 0 {
            return Err(EngineError::EmptyChunk);
        }
        if scored == 0 || scored >= ids.len() {
            return Err(EngineError::Scored {
                scored,
                tokens: ids.len(),
            });
        }
        self.rewind(0)?;
        self.with_cache("score", |model, cache| {
            let scored = score_chunks(model, cache, ids, scored, chunk, settings, progress);
            // Nothing is decoded after a text.
            cache.clear();
            scored
        })
    }
}

fn score_chunks(
    model: &CausalLm,
    cache: &mut KvCache,
    ids: &[u32],
    scored: usize,
    chunk: usize,
    settings: &AttentionSettings,
    progress: &mut dyn FnMut(PrefillProgress),
) -> Result<Scored, EngineError> {
    let start = Instant::now();
    let total = ids.len();
    let first = total - scored - 1;
    progress(PrefillProgress { done: 0, total });
    let (mut chunks, mut nll) = (Chunks::default(), Vec::with_capacity(scored));
    for (index, piece) in ids.chunks(chunk).enumerate() {
        let at = index * chunk;
        let (from, to) = (at.max(first), (at + piece.len()).min(total - 1));
        let rows = (from < to).then(|| from - at..to - at);
        let wanted = rows.is_some();
        let watch = Watch {
            rows,
            observer: None,
        };
        let output = model.forward_watched(&[piece], &[total], cache, settings, watch)?;
        let hidden = chunks.push(at..at + piece.len(), output);
        if wanted {
            rows_nll(model, hidden, &ids[from + 1..to + 1], &mut nll)?;
        }
        model
            .device()
            .sync()
            .map_err(|e| EngineError::execution("score", e))?;
        progress(PrefillProgress {
            done: at + piece.len(),
            total,
        });
    }
    let seconds = start.elapsed().as_secs_f64();
    let (decisions, selection) = chunks.read()?;
    Ok(Scored {
        nll,
        density: density(&decisions),
        decisions,
        selection,
        seconds,
    })
}

/// `hidden` `[n, hidden]` and the `n` tokens that follow.
fn rows_nll(
    model: &CausalLm,
    hidden: Tensor<2>,
    targets: &[u32],
    nll: &mut Vec<f32>,
) -> Result<(), EngineError> {
    let rows = (LOGITS / model.config().vocab_size.max(1)).max(1);
    for (index, targets) in targets.chunks(rows).enumerate() {
        let at = index * rows;
        let hidden = hidden.clone().slice_dim(0, at..at + targets.len());
        let logits = model.logits(hidden)?.cast(DType::F32);
        let ids: Vec<i32> = targets.iter().map(|id| *id as i32).collect();
        let ids = TensorData::new(ids, [targets.len(), 1]);
        let ids = Tensor::<2, Int>::from_data(ids, model.device());
        let chosen = logits.clone().gather(1, ids);
        // log sum exp(l - chosen), its largest term taken out: no difference of large sums.
        let top = logits.clone().max_dim(1);
        let sum = (logits - top.clone()).exp().sum_dim(1).log();
        let data = (sum + top - chosen)
            .try_into_data()
            .map_err(|e| EngineError::execution("score", e))?;
        let values: Vec<f32> = data
            .try_to_vec()
            .map_err(|e| EngineError::execution("score", format!("{e:?}")))?;
        nll.extend(values);
    }
    Ok(())
}
