//! Faults of config.json and generation_config.json.
//!
//! Each variant names the file and the field, so that a reader can open the file and see the value.

use crate::Architecture;

/// Refusals of a configuration.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The text is not JSON, or its top is not an object.
    #[error("{file} is not a JSON object: {reason}")]
    Syntax {
        /// The file.
        file: &'static str,
        /// The parser's answer.
        reason: String,
    },
    /// A required field is absent or null.
    #[error("{file}: `{field}` is missing, expected {expected}")]
    Missing {
        /// The file.
        file: &'static str,
        /// The field.
        field: &'static str,
        /// Description of an accepted value.
        expected: &'static str,
    },
    /// A field holds a value of the wrong JSON type.
    #[error("{file}: `{field}` is {got}, expected {expected}")]
    Type {
        /// The file.
        file: &'static str,
        /// The field.
        field: String,
        /// The value, shortened.
        got: String,
        /// Description of an accepted value.
        expected: &'static str,
    },
    /// A field holds a value outside its limits.
    #[error("{file}: `{field}` is {got}, expected {expected}")]
    Value {
        /// The file.
        file: &'static str,
        /// The field.
        field: &'static str,
        /// The value.
        got: String,
        /// The limits.
        expected: String,
    },
    /// Two fields contradict each other.
    #[error("{file}: `{field}` is {got} but `{other}` is {other_got}: {rule}")]
    Conflict {
        /// The file.
        file: &'static str,
        /// One field.
        field: &'static str,
        /// Value of the field.
        got: String,
        /// The other field.
        other: &'static str,
        /// Value of the field.
        other_got: String,
        /// The rule that ties them.
        rule: &'static str,
    },
    /// The model family is not supported.
    #[error(
        "config.json: `{field}` is {got}, supported are {}",
        Architecture::supported()
    )]
    UnsupportedArchitecture {
        /// Field that decided.
        field: &'static str,
        /// Value of the field.
        got: String,
    },
    /// The head size is outside what the attention kernels take.
    #[error(
        "config.json: head_dim is {got}, the attention kernels take multiples of 8 in 32..=256: use a model with head_dim 64, 96, 128 or 256"
    )]
    HeadDim {
        /// Elements per head.
        got: usize,
    },
    /// The rotary scaling is not supported.
    #[error(
        "config.json: `{field}` has type {got}, supported are null, \"default\", \"linear\", \"llama3\", \"yarn\", \"longrope\" (also \"su\") and \"dynamic\""
    )]
    RopeScaling {
        /// The field, `rope_scaling` or `rope_parameters`.
        field: &'static str,
        /// The type found.
        got: String,
    },
    /// A field switches on something that changes the model's mathematics and is not supported.
    #[error("config.json: `{field}` is {got}, which is not supported: {way_out}")]
    UnsupportedFeature {
        /// The field.
        field: &'static str,
        /// Value of the field, shortened.
        got: String,
        /// Supported alternative.
        way_out: &'static str,
    },
}
