//! Rows: what one measurement gave. `attention` is the text that named it on the command line, which
//! is unique in a file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::MemoryUse;

/// One question with its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnswerRow {
    /// Attention of the prefill.
    pub attention: String,
    /// `needle_single`, `niah_multikey_1`, `vt`, ...
    pub task: String,
    /// Prompt tokens asked for.
    pub length: usize,
    /// Prompt tokens run.
    pub tokens: usize,
    /// Position of the (first) needle, 0 at the start and 1 at the end; `None` if it has none.
    pub depth: Option<f64>,
    /// Number of the sample of (task, length, depth).
    pub sample: usize,
    /// Seed of the sample.
    pub seed: u64,
    /// Texts that the answer should contain.
    pub expected: Vec<String>,
    /// Text that the model wrote.
    pub answer: String,
    /// Share of `expected` found, 0 to 1.
    pub score: f64,
    /// Share of causal pairs computed, 0 to 1.
    pub density: f64,
    /// Seconds to the first token.
    pub ttft_s: f64,
    /// Seconds in all.
    pub seconds: f64,
}

/// One window of a text, its last part scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PerplexityRow {
    /// Attention of the whole window.
    pub attention: String,
    /// Tokens of the window.
    pub length: usize,
    /// Number of the window.
    pub sample: usize,
    /// First token of the window in the text.
    pub start: usize,
    /// Tokens scored, the window's last.
    pub scored: usize,
    /// UTF-8 bytes of the scored tokens' text.
    pub bytes: usize,
    /// Sum of negative log-likelihoods, nats.
    pub nll: f64,
    /// Mean over the scored tokens of the divergence of their distribution from dense's on the same window, nats:
    /// `sum_v p(v) ln(p(v) / q(v))`, `p` dense's. None for dense itself, and where dense was not run beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
    /// Share of the scored tokens before which both name the same token first, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top1: Option<f64>,
    /// Share of causal pairs computed, 0 to 1.
    pub density: f64,
    /// Seconds.
    pub seconds: f64,
}

/// One prompt: the next token and the last hidden state against dense.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FidelityRow {
    /// Attention compared with dense.
    pub attention: String,
    /// Prompt tokens.
    pub length: usize,
    /// Number of the prompt.
    pub sample: usize,
    /// KL(dense || this) of the next token's distribution, nats.
    pub kl: f64,
    /// True if both rank the same token first.
    pub top1: bool,
    /// Relative L2 error of the last hidden state.
    pub hidden_error: f64,
    /// Share of causal pairs computed, 0 to 1.
    pub density: f64,
    /// Seconds of the prefill.
    pub seconds: f64,
    /// Seconds of the dense prefill.
    pub dense_seconds: f64,
}

/// One query head: attention mass kept and output error, over sampled rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeadRow {
    /// Attention compared with dense.
    pub attention: String,
    /// Prompt tokens.
    pub length: usize,
    /// Number of the prompt.
    pub sample: usize,
    /// Decoder layer.
    pub layer: usize,
    /// Query head.
    pub head: usize,
    /// Mean of `exp(LSE_sparse - LSE_dense)`, 0 to 1; where heads choose their keys, as they measured it on
    /// their probe rows.
    pub recall: f64,
    /// Least of the sampled rows, or of the chunks where heads choose.
    pub recall_min: f64,
    /// Relative L2 error of the head's output.
    pub error: f64,
    /// Share of causal pairs computed, 0 to 1: of the head where heads choose, else of the run.
    pub density: f64,
    /// The pattern that the head chose in its heaviest chunk, where heads choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<String>,
    /// Recall that was expected of the choice, mean over the sampled rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_recall: Option<f64>,
    /// Mean of `|LSE - LSE_dense|`, the correction's share included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lse_error: Option<f64>,
}

/// Time to first token at one length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TtftRow {
    /// Attention of the prefill.
    pub attention: String,
    /// Prompt tokens.
    pub length: usize,
    /// Seconds of every timed run, in order.
    pub runs_s: Vec<f64>,
    /// Median of `runs_s`.
    pub ttft_s: f64,
    /// Seconds of the first run, compiling and tuning included.
    pub first_s: f64,
    /// Share of causal pairs computed, 0 to 1.
    pub density: f64,
    /// True if the density was forced, which random weights need.
    pub forced: bool,
    /// Relative L2 error of the last hidden state against dense; `None` for dense itself.
    pub error: Option<f64>,
    /// Memory at the peak, on all devices together.
    pub memory: MemoryUse,
    /// Chunks of the prompt; 0 in files of before this was recorded.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub chunks: usize,
    /// The stages of a pipeline, in order; none on one device.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<StageSummary>,
}

/// One stage of a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageSummary {
    /// Device of the stage.
    pub device: String,
    /// Decoder layers.
    pub layers: usize,
    /// Seconds of the median run in which it had a chunk in work: from when it had its input and was done
    /// with the chunk before, until its output could be read.
    pub busy_s: f64,
    /// Memory at its peak.
    pub memory: MemoryUse,
}

impl TtftRow {
    /// Busy seconds of all stages over the seconds of the run: the number of devices at work on average.
    pub fn overlap(&self) -> Option<f64> {
        let busy: f64 = self.stages.iter().map(|stage| stage.busy_s).sum();
        (!self.stages.is_empty()).then(|| busy / self.ttft_s)
    }
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

fn one() -> usize {
    1
}

fn is_one(n: &usize) -> bool {
    *n == 1
}

/// Decoding at one depth of the cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecodeRow {
    /// Attention of the prefill; decoding is dense.
    pub attention: String,
    /// Tokens in the cache at the start.
    pub depth: usize,
    /// Tokens decoded in each run.
    pub tokens: usize,
    /// Seconds of every timed run.
    pub runs_s: Vec<f64>,
    /// Median seconds per token, as each of the sequences sees it.
    pub per_token_s: f64,
    /// Sequences that decode at once.
    #[serde(default = "one", alias = "requests", skip_serializing_if = "is_one")]
    pub sequences: usize,
}

/// One attention kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KernelRow {
    /// Attention under which the rows are computed.
    pub attention: String,
    /// Prompt tokens.
    pub length: usize,
    /// Share of causal pairs computed, 0 to 1.
    pub density: f64,
    /// Query heads.
    pub heads: usize,
    /// KV heads.
    pub kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Median milliseconds.
    pub median_ms: f64,
    /// Least milliseconds.
    pub min_ms: f64,
    /// `4 d` operations per kept causal pair over the median time, in 1e12 a second.
    pub tflops: f64,
    /// Relative L2 error against f64 on sampled rows.
    pub error: f64,
}

/// An oracle that knows the attention: per query tile the fewest key blocks that hold a share of its
/// softmax mass, the first block and the diagonal always kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OracleRow {
    /// Prompt tokens.
    pub length: usize,
    /// Tokens of a query tile and of a key block.
    pub block: usize,
    /// True if the query heads of a KV head share a choice; the mass is then summed over those heads.
    pub shared: bool,
    /// Share of the mass that is kept at least, 0 to 1.
    pub share: f64,
    /// Kept causal pairs over all, of the sampled query blocks, 0 to 1.
    pub density: f64,
    /// Relative L2 error against dense, over all rows of the sampled query blocks and all heads.
    pub error: f64,
    /// The same where the mean key and mean value of every block stand in for what was left out of it.
    pub corrected_error: f64,
}

/// A selection that works from the input, on the rows that the oracle is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FrontierRow {
    /// Prompt tokens.
    pub length: usize,
    /// Name of the selector: `dynamic`, `hybrid:query-heads`, the name of a baseline.
    pub selector: String,
    /// Recall floor that was asked for, 0 to 1; `None` where the selector has none.
    pub floor: Option<f64>,
    /// Kept causal pairs over all, mean over heads, 0 to 1.
    pub density: f64,
    /// Relative L2 error against dense, over all rows of the sampled query blocks and all heads.
    pub error: f64,
    /// Median milliseconds of selection and attention together.
    pub total_ms: f64,
    /// Milliseconds of the selection alone; `None` where nothing is chosen.
    pub selection_ms: Option<f64>,
    /// Median milliseconds of dense attention, run by turns with it.
    pub dense_ms: f64,
    /// Recall that was expected, mean over heads; `None` where nothing is expected.
    pub predicted_recall: Option<f64>,
    /// Recall on the probe rows, mean over heads.
    pub recall: Option<f64>,
    /// Least recall of a head.
    pub least_recall: Option<f64>,
    /// Heads that chose.
    pub heads: usize,
    /// A choice is for all query heads of a KV head.
    #[serde(default = "yes")]
    pub shared: bool,
    /// Calls that were dense in the end.
    pub dense_heads: usize,
    /// Heads by the pattern they chose.
    pub mix: BTreeMap<String, usize>,
}

/// Rows of before say nothing: theirs were shared.
fn yes() -> bool {
    true
}

/// Something asked for that could not be run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SkippedRow {
    /// Name of the measurement that was not run.
    pub what: String,
    /// Reason, with the way out.
    pub reason: String,
}
