//! Why something was not measured.

use sparse_accelerate::AttentionError;
use sparse_accelerate_engine::EngineError;
use sparse_accelerate_inputs::InputError;
use thiserror::Error;

/// A measurement that was refused or failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SpeedError {
    /// The model, the device or the prompt.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Attention settings, or a shape that attention does not do.
    #[error(transparent)]
    Attention(#[from] AttentionError),
    /// A result that rounding does not explain.
    #[error(
        "{attention} at {length} tokens: error {error:.2e} against f64, where {limit:.0e} is allowed; \
         not timed. This is a defect: please report it with what `doctor` says"
    )]
    Wrong {
        /// Name of the attention.
        attention: String,
        /// Prompt tokens.
        length: usize,
        /// Relative L2 error.
        error: f64,
        /// The most that is allowed.
        limit: f64,
    },
    /// A density that is none.
    #[error(
        "{got}: `{part}` is no density; write a share between 0 and 1 for every length, \
         `0.1`, or one for each, `8k=0.54,32k=0.187`"
    )]
    Density {
        /// As written.
        got: String,
        /// The part that is wrong.
        part: String,
    },
    /// More tokens a run than a cache of a model with windows takes back.
    #[error(
        "decode: {got} tokens a run cannot be taken back for the next: the cache of a model with windows keeps what {limit} need; \
         decode at most so many"
    )]
    TakenBack {
        /// Tokens a run.
        got: usize,
        /// The most.
        limit: usize,
    },
    /// Inputs that are not defined.
    #[error(transparent)]
    Inputs(#[from] InputError),
    /// A selector that is none.
    #[error(
        "{got}: {reason}; a selector is an attention such as dynamic or \
         hybrid:granularity=per-kv-head, or a published one such as baseline:minference or \
         baseline:xattention:threshold=0.9"
    )]
    Selector {
        /// As written.
        got: String,
        /// The reason.
        reason: String,
    },
    /// Times that no prices explain.
    #[error("calibrate: {what}; the times are too few or too alike, measure more lengths")]
    Fit {
        /// The price that is missing.
        what: &'static str,
    },
    /// A number of runs or tokens that measures nothing.
    #[error("{field} is 0, but must be at least 1")]
    Nothing {
        /// The setting.
        field: &'static str,
    },
}

impl SpeedError {
    /// The field of the settings that has to change, where one has.
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::Density { .. } => Some("density"),
            Self::Selector { .. } => Some("selectors"),
            Self::Fit { .. } => Some("lengths"),
            Self::TakenBack { .. } => Some("tokens"),
            Self::Nothing { field } => Some(field),
            _ => None,
        }
    }

    /// Returns `true` where asking differently would help.
    pub fn is_usage(&self) -> bool {
        match self {
            SpeedError::Engine(error) => error.is_usage(),
            SpeedError::Attention(error) => matches!(error, AttentionError::Setting { .. }),
            SpeedError::Density { .. }
            | SpeedError::Inputs(_)
            | SpeedError::Selector { .. }
            | SpeedError::TakenBack { .. }
            | SpeedError::Nothing { .. } => true,
            SpeedError::Fit { .. } | SpeedError::Wrong { .. } => false,
        }
    }
}
