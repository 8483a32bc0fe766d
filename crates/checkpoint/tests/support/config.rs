//! The sound config with one edit, and what becomes of it.
//!
//! Shared by the two files that test config.json.

use serde_json::Value;
use sparse_accelerate_checkpoint::{CheckpointError, ConfigError, ModelConfig};

use super::llama_config;

pub(crate) fn parse(config: &Value) -> Result<ModelConfig, CheckpointError> {
    ModelConfig::from_json(&config.to_string())
}

/// The sound config with one field set, or removed when the value is null.
pub(crate) fn with(field: &str, value: Value) -> Value {
    let mut config = llama_config();
    match value {
        Value::Null => drop(config.as_object_mut().expect("an object").remove(field)),
        value => config[field] = value,
    }
    config
}

pub(crate) fn refused(field: &str, value: Value) -> ConfigError {
    match parse(&with(field, value.clone())) {
        Err(CheckpointError::Config(error)) => error,
        other => panic!("{field} = {value} gave {other:?}"),
    }
}
