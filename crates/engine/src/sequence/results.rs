//! Results of running a prompt or scoring a text.

use serde::Serialize;
use sparse_accelerate::Decision;

use super::ChunkSelection;
use crate::runner::States;

/// Progress of a prefill or of scoring a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PrefillProgress {
    /// Tokens computed.
    pub done: usize,
    /// Tokens to compute.
    pub total: usize,
}

/// Results of a prefill.
#[derive(Debug, Clone)]
pub struct Prefill {
    /// Hidden state of the last prompt token, after the final norm: `[hidden]`, as f32.
    pub last_hidden: Vec<f32>,
    /// Logits of the next token: `[vocab]`, as f32.
    pub logits: Vec<f32>,
    /// Decision of attention in each chunk, in order.
    pub decisions: Vec<Decision>,
    /// Choices of the heads in each chunk, where they choose from the input.
    pub selection: Vec<ChunkSelection>,
    /// Share of causal (query, key) pairs computed over the chunks, 0 to 1.
    pub density: f64,
    /// Prompt tokens computed.
    pub tokens: usize,
    /// Prompt tokens that the cache held already.
    pub reused: usize,
    /// Seconds from the start until the logits were on the host.
    pub seconds: f64,
    /// Seconds in which each stage had work, in order.
    pub busy_s: Vec<f64>,
}

/// Log-likelihoods of the last tokens of a text.
#[derive(Debug, Clone)]
pub struct Scored {
    /// Negative log-likelihood of each scored token, nats, in order.
    pub nll: Vec<f32>,
    /// Hidden states that they come from, for [`Sequence::diverge`](super::Sequence::diverge).
    pub states: States,
    /// Decision of attention in each chunk, in order.
    pub decisions: Vec<Decision>,
    /// Choices of the heads in each chunk, where they choose from the input.
    pub selection: Vec<ChunkSelection>,
    /// Share of causal (query, key) pairs computed over the whole text, 0 to 1.
    pub density: f64,
    /// Seconds.
    pub seconds: f64,
}
