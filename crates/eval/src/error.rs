//! Why an evaluation cannot be done, with the way out.

use std::{io, path::PathBuf};

use sparse_accelerate::AttentionError;
use sparse_accelerate_checkpoint::{CheckpointError, TextError};
use sparse_accelerate_engine::EngineError;
use sparse_accelerate_report::record::RecordError;
use thiserror::Error;

/// An evaluation that was refused or failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EvalError {
    /// The model, the device or the attention.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The run file.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The tokenizer or the chat template.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A file cannot be read.
    #[error("{}: cannot be read ({source})", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// A file of questions that is none.
    #[error(
        "{}: line {line}: {reason}; a line is {{\"document\": \"...\", \"question\": \"...\", \
         \"answers\": [\"...\"]}}",
        path.display()
    )]
    Questions {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Why.
        reason: String,
    },
    /// No such task.
    #[error("task `{got}` is not known; one of {}", known.join(", "))]
    UnknownTask {
        /// As written.
        got: String,
        /// Those there are.
        known: Vec<&'static str>,
    },
    /// A number outside its range.
    #[error("{field} is {got}; {limit}")]
    Range {
        /// The field of the plan.
        field: &'static str,
        /// Its value.
        got: String,
        /// The range, in a sentence.
        limit: String,
    },
    /// A text with too few tokens for a search.
    #[error("the text has {tokens} tokens; a search needs at least {least}, give a longer text")]
    TooFewTokens {
        /// Tokens of the text.
        tokens: usize,
        /// Fewest tokens.
        least: usize,
    },
    /// A length over the model's positions.
    #[error(
        "length {length}: this model has {limit} positions, prompt and answer together; leave that length \
         out"
    )]
    OverLimit {
        /// Tokens asked for.
        length: usize,
        /// Positions.
        limit: usize,
    },
    /// The text is shorter than a prompt needs.
    #[error(
        "{name}: has {have} tokens with this model's tokenizer, but {needed} are needed for length \
         {length}; give a longer text or leave that length out"
    )]
    TextTooShort {
        /// The text's name.
        name: String,
        /// Its tokens.
        have: usize,
        /// Tokens needed.
        needed: usize,
        /// The length asked for.
        length: usize,
    },
    /// The text has too few different words for a task.
    #[error(
        "{name}: has {have} different words of 3 to 12 letters, but {needed} are needed; give a \
         longer text"
    )]
    TooFewWords {
        /// The text's name.
        name: String,
        /// Different words.
        have: usize,
        /// Words needed.
        needed: usize,
    },
    /// The task does not fit the length.
    #[error(
        "{task}: the shortest prompt has {least} tokens with room for the answer, but length is \
         {length}; ask for a longer one"
    )]
    TooShort {
        /// The task.
        task: &'static str,
        /// The length asked for.
        length: usize,
        /// Tokens of the shortest prompt and its answer.
        least: usize,
    },
    /// A task without its source.
    #[error("{task}: {reason}")]
    NoSource {
        /// The task.
        task: &'static str,
        /// The source that is missing.
        reason: &'static str,
    },
    /// Tokens do not give the text back.
    #[error(
        "{name}: its tokens do not give it back, first at byte {byte} ({text} there, {back} back); \
         lengths and bytes would be wrong. Use a text in the form this tokenizer keeps (often Unicode \
         NFC), or the model's own tokenizer"
    )]
    RoundTrip {
        /// The text's name.
        name: String,
        /// First byte that differs.
        byte: usize,
        /// The text from there.
        text: String,
        /// The text that came back.
        back: String,
    },
    /// A result that is no number.
    #[error(
        "{what} is {got}, so it cannot be compared; a value overflowed, compute in f32 or bf16"
    )]
    NotFinite {
        /// The quantity.
        what: String,
        /// Its value.
        got: f64,
    },
    /// The device failed while something was measured.
    #[error("{op}: the device failed: {reason}")]
    Execution {
        /// The operation.
        op: &'static str,
        /// The backend's words.
        reason: String,
    },
}

impl EvalError {
    /// The field of a plan or of a source that has to change, where one has.
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::Range { field, .. } => Some(field),
            Self::OverLimit { .. } => Some("lengths"),
            Self::NoSource { .. } => Some("questions"),
            Self::NotFinite { .. } => Some("dtype"),
            _ => None,
        }
    }

    /// Returns `true` where asking differently would help.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Engine(error) => error.is_usage(),
            Self::Record(error) => matches!(
                error,
                RecordError::Open { .. }
                    | RecordError::Locked { .. }
                    | RecordError::NoLock { .. }
                    | RecordError::NotARunFile { .. }
                    | RecordError::OtherRun { .. }
            ),
            Self::Text(_) | Self::NotFinite { .. } | Self::Execution { .. } => false,
            _ => true,
        }
    }
}

impl From<CheckpointError> for EvalError {
    fn from(error: CheckpointError) -> Self {
        Self::Engine(error.into())
    }
}

impl From<AttentionError> for EvalError {
    fn from(error: AttentionError) -> Self {
        Self::Engine(error.into())
    }
}
