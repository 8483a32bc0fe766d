//! The lines of a run file.
//!
//! One JSON object a line, told apart by `kind`. The first line is a [`Header`]: what ran, on what,
//! from which seed. Every other line is a finished row; a row never changes once written.

mod error;
mod file;
mod header;
mod limits;
mod rows;

pub use error::RecordError;
pub use file::{RunFile, read};
pub use header::{Header, MemoryUse, ModelMetadata, SCHEMA, WeightSource};
pub use rows::{
    AnswerRow, DecodeRow, FidelityRow, FrontierRow, HeadRow, KernelRow, OracleRow, PerplexityRow,
    SkippedRow, StageSummary, TtftRow,
};

use serde::{Deserialize, Serialize};

/// One line of a run file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Line {
    /// The run's header; the first line.
    Header(Box<Header>),
    /// One question of needle or ruler.
    Answer(AnswerRow),
    /// One window of a text.
    Perplexity(PerplexityRow),
    /// One prompt, sparse against dense.
    Fidelity(FidelityRow),
    /// One query head of one layer of a prompt.
    Head(HeadRow),
    /// One prompt length, timed.
    Ttft(TtftRow),
    /// One attention kernel, timed.
    Kernel(KernelRow),
    /// One share of the attention mass, by an oracle.
    Oracle(OracleRow),
    /// One selection, its error and time.
    Frontier(FrontierRow),
    /// One cache depth, decoding timed.
    Decode(DecodeRow),
    /// A requested measurement that could not be run, with the reason.
    Skipped(SkippedRow),
}
