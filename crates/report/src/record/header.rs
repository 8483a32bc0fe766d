//! Header of a run file, which describes the run as a whole.

use serde::{Deserialize, Serialize};

/// Version of the lines' meaning; a file of another version is refused, not guessed at.
pub const SCHEMA: u32 = 1;

/// The first line of a run file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`SCHEMA`].
    pub schema: u32,
    /// `eval needle`, `eval ruler`, `eval perplexity`, `eval fidelity`, `bench ttft`, ...
    pub command: String,
    /// The arguments as given, without the program's name.
    pub arguments: Vec<String>,
    /// Version of this program.
    pub version: String,
    /// Commit it was built from, `-dirty` appended where the tree had changes; `None` where unknown.
    pub commit: Option<String>,
    /// Start, UTC, `2026-11-25T21:00:00Z`.
    pub started: String,
    /// Seed of everything random.
    pub seed: u64,
    /// The model.
    pub model: Option<ModelMetadata>,
    /// Device and why it was taken, in words.
    pub device: String,
    /// Type of weights, activations and cache: `f32`, `f16`, `bf16`.
    pub dtype: String,
    /// Prompt tokens computed at a time; 0 where a prompt is never cut.
    pub chunk: usize,
    /// Everything else that fixes the rows, by name; a run resumes only a file with equal settings.
    pub settings: serde_json::Map<String, serde_json::Value>,
}

/// Metadata of the model that a run used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelMetadata {
    /// The folder's or the configuration file's name.
    pub name: String,
    /// SHA-256, hexadecimal, over configuration, tokenizer and weights; `None` for random weights.
    pub hash: Option<String>,
    /// Origin of the weights.
    pub weights: WeightSource,
    /// Parameters.
    pub parameters: u64,
    /// The configuration as read.
    pub config: serde_json::Value,
}

/// Origin of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightSource {
    /// A checkpoint.
    Checkpoint,
    /// Random numbers: times and memory mean something, answers do not.
    Random,
}

/// Bytes on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// Weights.
    pub weights: u64,
    /// KV cache.
    pub cache: u64,
    /// Everything else at the peak.
    pub workspace: u64,
    /// True if the peak was measured; otherwise it is the plan's.
    pub measured: bool,
}
