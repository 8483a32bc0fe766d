//! Runs: rows that are still missing from a run file are measured and appended, one after another.
//!
//! Every attention of a comparison gets the same prompt, and one session with one cache serves them
//! all (one a length where rotary frequencies follow it). What is in the file already is not run again.

mod answers;
mod fidelity;
mod perplexity;

pub use answers::{AnswersPlan, run_answers};
pub use fidelity::{FidelityPlan, Prompts, run_fidelity};
pub use perplexity::{PerplexityPlan, run_perplexity};

use std::ops::ControlFlow;

use sparse_accelerate::AttentionSettings;
use sparse_accelerate_checkpoint::{ModelConfig, ModelDir, RopeScaling};
use sparse_accelerate_engine::{
    Cancel, Chunking, EngineError, Loaded, PrefillProgress, Sequence, attention::NamedAttention,
};

use crate::error::EvalError;

/// The model that is examined.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Its directory.
    pub dir: &'a ModelDir,
    /// The loaded model.
    pub model: &'a Loaded,
    /// Prompt tokens computed at a time.
    pub chunk: usize,
    /// `true` runs each length once before it is timed: a GPU compiles and tunes at first use.
    pub warm_up: bool,
    /// Ends the run at the next chunk or token, with [`EngineError::Cancelled`] in the midst of a prompt.
    pub cancel: &'a Cancel,
}

impl<'a> Subject<'a> {
    /// Makes a sequence of the model that [`Subject::cancel`] ends.
    pub(crate) fn sequence(&self, capacity: usize) -> Result<Sequence<'a>, EngineError> {
        let sequence = self.model.sequence(capacity)?;
        Ok(sequence.with_cancel(self.cancel.clone()))
    }

    /// The sequence for a sample of `length` tokens: another one where frequencies follow the length that a sequence is planned for, since
    /// a sample must not depend on what else its run holds.
    pub(crate) fn fit(
        &self,
        sequence: Sequence<'a>,
        length: usize,
    ) -> Result<Sequence<'a>, EngineError> {
        let scaling = self.dir.config().rope_scaling.as_ref();
        let follows = scaling.is_some_and(RopeScaling::follows_length);
        if !follows || sequence.capacity() == length {
            return Ok(sequence);
        }
        drop(sequence);
        self.sequence(length)
    }

    fn chunking(&self, prompt: usize, settings: &AttentionSettings) -> Chunking {
        self.model.chunking(prompt, self.chunk, settings)
    }
}

/// How far a run is. Work is counted in prompt tokens, so that long prompts weigh more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RunProgress<'a> {
    /// Rows of this run in the file.
    pub rows: usize,
    /// Rows in all.
    pub of: usize,
    /// Prompt tokens computed since the start of this process.
    pub done: u64,
    /// Prompt tokens this process will compute.
    pub total: u64,
    /// The row in hand.
    pub what: &'a str,
}

/// Receiver of progress. Breaking ends the run after the row in hand, which is not an error: what is in
/// the file stays, and the same command goes on.
pub type OnProgress<'a> = &'a mut dyn FnMut(&RunProgress<'_>) -> ControlFlow<()>;

/// Refuses lengths that a model has no positions for.
pub(crate) fn check_lengths(lengths: &[usize], config: &ModelConfig) -> Result<(), EvalError> {
    let limit = config.max_positions;
    match lengths.iter().find(|length| **length > limit) {
        Some(length) => Err(EvalError::OverLimit {
            length: *length,
            limit,
        }),
        None => Ok(()),
    }
}

/// Refuses a number that must be at least 1.
pub(crate) fn at_least_one(field: &'static str, got: usize) -> Result<(), EvalError> {
    if got > 0 {
        return Ok(());
    }
    Err(EvalError::Range {
        field,
        got: got.to_string(),
        limit: "it must be at least 1".into(),
    })
}

/// Refuses a result that is no number.
pub(crate) fn finite(what: impl Fn() -> String, got: f64) -> Result<f64, EvalError> {
    if got.is_finite() {
        return Ok(got);
    }
    Err(EvalError::NotFinite { what: what(), got })
}

/// Counts work and reports it.
struct Work<'a> {
    rows: usize,
    of: usize,
    done: u64,
    total: u64,
    report: OnProgress<'a>,
    ended: bool,
}

impl<'a> Work<'a> {
    /// `rows` of `of` are in the file; `total` prompt tokens will be computed.
    fn new(rows: usize, of: usize, total: u64, report: OnProgress<'a>) -> Self {
        Self {
            rows,
            of,
            done: 0,
            total,
            report,
            ended: false,
        }
    }

    /// `extra` tokens of the prompt in hand are computed.
    fn within(&mut self, what: &str, progress: PrefillProgress) {
        self.tell(what, progress.done as u64);
    }

    /// A prompt of `tokens` is computed, and a row is in the file.
    fn row(&mut self, what: &str, tokens: usize) {
        self.rows += 1;
        self.step(what, tokens);
    }

    /// A prompt of `tokens` is computed, for no row of its own.
    fn step(&mut self, what: &str, tokens: usize) {
        self.done += tokens as u64;
        self.tell(what, 0);
    }

    fn tell(&mut self, what: &str, extra: u64) {
        let progress = RunProgress {
            rows: self.rows,
            of: self.of,
            done: (self.done + extra).min(self.total),
            total: self.total,
            what,
        };
        if (self.report)(&progress).is_break() {
            self.ended = true;
        }
    }
}

/// One prompt with every attention that is not timed: kernels are compiled and tuned.
fn warm_up(
    session: &mut Sequence<'_>,
    ids: &[u32],
    subject: &Subject<'_>,
    attentions: &[NamedAttention],
    work: &mut Work<'_>,
) -> Result<(), EvalError> {
    for attention in attentions {
        let what = format!("warming up {}", attention.name);
        let mut tell = |progress| work.within(&what, progress);
        let chunking = subject.chunking(ids.len(), &attention.settings);
        session.prefill(ids, chunking, &attention.settings, &mut tell)?;
        if session.tokens().len() < session.capacity() {
            session.decode(ids[0])?;
        }
        work.step(&what, ids.len());
    }
    Ok(())
}

/// Settings of a text whose rows are all scored: dense last rows are for a question at the end of a
/// prompt, so they are switched off unless they are to be kept.
pub(crate) fn without_last(settings: &AttentionSettings) -> AttentionSettings {
    let mut settings = settings.clone();
    settings.selection.last = 0;
    let selector = settings.selector.as_ref();
    if let Some(without) = selector.and_then(|selector| selector.without_last()) {
        settings.selector = Some(without);
    }
    if let sparse_accelerate::Pattern::Triangular(triangular) = &mut settings.pattern {
        triangular.last = 0;
    }
    settings
}
