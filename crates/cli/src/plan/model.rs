//! The model of a plan: its configuration, nothing else.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};
use sparse_accelerate_checkpoint::{ModelConfig, read_config};
use sparse_accelerate_engine::planner::PlanRequest;

use crate::{exit::usage, run_file::name_of};

/// The name and the configuration of a directory or of a file; one of them is given.
pub(super) fn open(model: Option<&Path>, config: Option<&Path>) -> Result<(String, ModelConfig)> {
    let (flag, path, name) = match (model, config) {
        (Some(dir), _) => ("--model", dir.join("config.json"), name_of(dir)),
        (None, Some(file)) => ("--config", file.into(), name_of(&file.with_extension(""))),
        (None, None) => return Err(usage("give --model DIR or --config FILE")),
    };
    let wrong =
        |error: &dyn std::fmt::Display| usage(format!("{flag} {}: {error}", path.display()));
    let text = read_config(&path).map_err(|error| wrong(&error))?;
    let config = ModelConfig::from_json(&text).map_err(|error| wrong(&error))?;
    Ok((name, config))
}

/// Describes it in JSON.
pub(super) fn metadata(name: &str, request: &PlanRequest) -> Value {
    let config = &request.config;
    json!({
        "name": name,
        "layers": config.layers,
        "parameters": config.parameter_count(),
        "positions": config.max_positions,
    })
}
