//! Evaluation of sparse attention: answers kept, and time and memory saved.
//!
//! Four evaluations compare attentions on one model: needles in the user's text and RULER's tasks have
//! known answers ([`run_answers`]); perplexity scores the user's text ([`run_perplexity`]); fidelity
//! needs only a prompt ([`run_fidelity`]). Each appends finished rows to a run file and skips those
//! that are in it.
//!
//! Everything random comes from one seed: samples are the same on every machine, bit for bit.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod corpus;
mod draw;
mod error;
mod fit;
mod format;
mod hash;
mod recall;
mod run;
mod score;
pub mod search;
pub mod speed;
mod tasks;
mod time;
mod version;

pub use corpus::Corpus;
pub use error::EvalError;
pub use format::Format;
pub use hash::{model_hash, model_outline, text_hash};
pub use run::{
    AnswersPlan, FidelityPlan, OnProgress, PerplexityPlan, Prompts, RunProgress, Subject,
    run_answers, run_fidelity, run_perplexity,
};
pub use score::{Match, score};
pub use tasks::{NEEDLE, Questions, RULER, Sample, Sources, Task, Which, parse_tasks};
pub use time::utc_now;
pub use version::{commit, version};
