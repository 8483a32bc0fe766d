//! Generation: prefill, then one token at a time until something ends it.
//!
//! Text goes to the caller as soon as it cannot become part of a stop string. Time to first token
//! runs from the call to the first sampled token, logits read back; decode speed counts the tokens
//! after it.

use std::{ops::ControlFlow, time::Instant};

use serde::Serialize;
use sparse_accelerate::{AttentionSettings, Decision};
use sparse_accelerate_checkpoint::{CheckpointError, Tokenizer};

use crate::{
    chunking::Chunking,
    error::EngineError,
    memory::MemoryReport,
    sampling::{Sampler, SamplingSettings},
    sequence::{ChunkSelection, PrefillProgress, Sequence},
    stop::StopScanner,
};

/// Settings of a generation.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateSettings {
    /// New tokens at most; 0 runs the prefill only.
    pub max_tokens: usize,
    /// Lengths of the prompt's chunks.
    pub chunking: Chunking,
    /// Keep the tokens that the cache holds of the prompt; see [`Sequence::resume`].
    pub reuse: bool,
    /// Attention of the prefill; decode is dense.
    pub attention: AttentionSettings,
    /// Settings of choosing tokens.
    pub sampling: SamplingSettings,
    /// Strings that end the text; they are not part of it. They may name special tokens.
    pub stop: Vec<String>,
    /// Tokens that end the text; they are not part of it.
    pub eos: Vec<u32>,
}

/// Reason for the end of a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model produced an end token.
    Eos,
    /// A stop string was completed.
    Stop(String),
    /// `max_tokens` were produced.
    Length,
    /// The caller asked to end, by `on_text` or by [`crate::Cancel`].
    Cancelled,
}

/// Times of one generation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Timings {
    /// Seconds until the prompt's logits were on the host.
    pub prefill_s: f64,
    /// Seconds until the first token was chosen; the prefill when none was asked for.
    pub ttft_s: f64,
    /// Prompt tokens per second of prefill.
    pub prefill_tokens_per_s: f64,
    /// Tokens per second after the first; `None` when there was only one.
    pub decode_tokens_per_s: Option<f64>,
}

/// A finished generation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Generation {
    /// The text, without stop string and end token.
    pub text: String,
    /// The tokens chosen, without the end token.
    pub ids: Vec<u32>,
    /// Reason for its end.
    pub finish: FinishReason,
    /// Prompt tokens.
    pub prompt_tokens: usize,
    /// Prompt tokens that the cache held already.
    pub reused_tokens: usize,
    /// Times.
    pub timings: Timings,
    /// Share of causal pairs the prefill computed, 0 to 1.
    pub density: f64,
    /// Decision of attention in each prefill chunk.
    pub decisions: Vec<Decision>,
    /// Choices of the heads in each prefill chunk, where they choose from the input.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub selection: Vec<ChunkSelection>,
    /// Memory.
    pub memory: MemoryReport,
    /// Seconds of the prefill in which each stage had work.
    pub busy_s: Vec<f64>,
    /// Hidden state of the last prompt token, `[hidden]`, for comparisons.
    #[serde(skip)]
    pub last_hidden: Vec<f32>,
}

/// Runs a prompt and generates after it. `on_text` gets the text in pieces and may end the generation by
/// breaking.
///
/// # Errors
/// Everything [`Sequence::prefill`] refuses for `prompt + max_tokens`, settings out of range, and failures
/// of the device or the tokenizer.
pub fn generate(
    sequence: &mut Sequence<'_>,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    settings: &GenerateSettings,
    progress: &mut dyn FnMut(PrefillProgress),
    on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<Generation, EngineError> {
    let mut sampler = Sampler::new(settings.sampling)?;
    let stops = StopScanner::new(&settings.stop)?;
    sequence.check(prompt.len(), settings.max_tokens)?;

    let start = Instant::now();
    let (chunking, attention) = (settings.chunking, &settings.attention);
    let prefill = match settings.reuse {
        true => sequence.resume(prompt, chunking, attention, progress)?,
        false => sequence.prefill(prompt, chunking, attention, progress)?,
    };
    let cancel = sequence.cancel();
    let mut logits = prefill.logits;
    let mut text = TextOut::new(stops, on_text);
    let mut stream = tokenizer.stream();
    let mut seen = prompt.to_vec();
    let (mut ttft_s, mut decoding, mut steps) = (prefill.seconds, Instant::now(), 0u32);
    let mut pending = None;
    let mut finish = FinishReason::Length;
    while seen.len() - prompt.len() < settings.max_tokens {
        if cancel.is_cancelled() {
            finish = FinishReason::Cancelled;
            break;
        }
        if let Some(token) = pending {
            logits = sequence.decode(token)?;
            steps += 1;
        }
        let token = sampler.sample(&logits, &seen)?;
        if pending.replace(token).is_none() {
            (ttft_s, decoding) = (start.elapsed().as_secs_f64(), Instant::now());
        }
        if settings.eos.contains(&token) {
            finish = FinishReason::Eos;
            break;
        }
        seen.push(token);
        let piece = stream.push(token).map_err(CheckpointError::from)?;
        let mut ended = piece.and_then(|piece| text.push(&piece));
        if ended.is_none() && !settings.stop.is_empty() {
            let special = tokenizer.is_special(token);
            let special = special.then(|| tokenizer.id_to_token(token)).flatten();
            ended = text.look_ahead(&stream.pending(), &special.unwrap_or_default());
        }
        if let Some(ended) = ended {
            finish = ended;
            break;
        }
    }
    let decode_s = decoding.elapsed().as_secs_f64();
    if matches!(finish, FinishReason::Eos | FinishReason::Length) {
        let rest = stream.flush().unwrap_or_default();
        finish = text.finish(&rest).unwrap_or(finish);
    }
    let ids = seen.split_off(prompt.len());
    let timings = Timings {
        prefill_s: prefill.seconds,
        ttft_s,
        prefill_tokens_per_s: prefill.tokens as f64 / prefill.seconds,
        decode_tokens_per_s: (steps > 0).then(|| f64::from(steps) / decode_s),
    };
    Ok(Generation {
        text: text.shown,
        ids,
        finish,
        prompt_tokens: prompt.len(),
        reused_tokens: prefill.reused,
        timings,
        density: prefill.density,
        decisions: prefill.decisions,
        selection: prefill.selection,
        memory: sequence.memory(chunking, attention)?,
        busy_s: prefill.busy_s,
        last_hidden: prefill.last_hidden,
    })
}

/// Passes text through the stop scanner to the caller and into the result.
struct TextOut<'a> {
    stops: StopScanner,
    on_text: &'a mut dyn FnMut(&str) -> ControlFlow<()>,
    shown: String,
}

impl<'a> TextOut<'a> {
    fn new(stops: StopScanner, on_text: &'a mut dyn FnMut(&str) -> ControlFlow<()>) -> Self {
        Self {
            stops,
            on_text,
            shown: String::new(),
        }
    }

    /// Takes a piece; gives the reason when it ended the text.
    fn push(&mut self, piece: &str) -> Option<FinishReason> {
        let released = self.stops.push(piece);
        let broke = self.show(&released.text);
        released.stopped.map(FinishReason::Stop).or(broke)
    }

    /// Takes a special token, empty for none, after text that a later token may still change; gives the reason when
    /// both together ended the text.
    fn look_ahead(&mut self, pending: &str, special: &str) -> Option<FinishReason> {
        if let Some(released) = self.stops.ended_by(pending, special) {
            let _ = self.show(&released.text);
            return released.stopped.map(FinishReason::Stop);
        }
        let released = self.stops.push_special(special);
        self.show(&released.text)
    }

    /// Takes the last piece and releases everything held back.
    fn finish(&mut self, rest: &str) -> Option<FinishReason> {
        let ended = self.push(rest);
        if ended.is_some() {
            return ended;
        }
        let held = self.stops.finish();
        self.show(&held)
    }

    fn show(&mut self, text: &str) -> Option<FinishReason> {
        if text.is_empty() {
            return None;
        }
        self.shown.push_str(text);
        match (self.on_text)(text) {
            ControlFlow::Continue(()) => None,
            ControlFlow::Break(()) => Some(FinishReason::Cancelled),
        }
    }
}
