//! `plan`: whether a model and a prompt fit, on which devices, and how long the prompt will take.
//!
//! Reads a configuration; opens a device only where one of this machine is named. What does not fit is
//! refused with its breakdown and with what fits instead, before anything is loaded.

mod devices;
mod model;
mod notes;
mod table;

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use sparse_accelerate_engine::{
    estimate::Density,
    memory::Footprint,
    placement::Split,
    planner::{self, PlanError, PlanRequest},
};
use sparse_accelerate_models::ModelOptions;

use crate::{
    args::{SizeArgs, one_length},
    exit::usage,
    output::{print_json, print_text},
};

const EXAMPLES: &str = "\
Examples:
  sparse-accelerate plan --model DIR --context 128k --devices rtx-a5000,rtx-a5000
      Do 128K tokens fit on two cards, and how long will they take? No card is needed to ask.
  sparse-accelerate plan --config config.json --context 64k --devices rtx-3090 --kv-dtype int8
      A configuration is enough; weights are not read.
  sparse-accelerate plan --model DIR --devices cuda:0,cuda:1 --split 14,18
      The devices of this machine, and layers as you want them.
  sparse-accelerate plan --model DIR --devices h100 --density 0.3 --json
      Another density, as JSON.

What does not fit is refused with exit code 2, its breakdown, and what fits instead, nearest first. Memory is
computed from shapes and checked against measured peaks; times come from rates that are measured or stated,
as the last lines say.";

/// Arguments of `plan`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PlanArgs {
    /// Model directory; only its config.json is read
    #[arg(long, short, value_name = "DIR", required_unless_present = "config")]
    model: Option<PathBuf>,

    /// A Hugging Face config.json in place of a directory; benches/shapes holds some
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    config: Option<PathBuf>,

    /// Tokens of prompt and answer together, such as 32k [default: the model's positions]
    #[arg(long, value_name = "N")]
    context: Option<String>,

    /// How many of them are the answer
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_tokens: usize,

    /// Known cards (rtx-a5000, h100, ...; a wrong name lists them) or devices of this machine (cuda:0, ...),
    /// in the order of the layers
    #[arg(
        long,
        value_name = "NAME,NAME...",
        default_value = "auto",
        value_delimiter = ',',
        help_heading = "Devices"
    )]
    devices: Vec<String>,

    /// auto: fastest prefill that fits; by-memory: equal shares of memory; or the layers of each device
    #[arg(
        long,
        value_name = "SPLIT",
        default_value = "auto",
        help_heading = "Devices"
    )]
    split: String,

    #[command(flatten)]
    sizes: SizeArgs,

    /// Share of attention's pairs that a sparse prefill computes, or by-length: as published for
    /// Llama-3.1-8B, 76 % at 4K to 4.6 % at 128K
    #[arg(
        long,
        value_name = "X",
        default_value = "by-length",
        help_heading = "Time"
    )]
    density: String,

    /// Rate of everything that is not attention, TFLOP/s of every device
    #[arg(long, value_name = "X", help_heading = "Time")]
    linear_tflops: Option<f64>,

    /// Rate of attention, TFLOP/s of every device
    #[arg(long, value_name = "X", help_heading = "Time")]
    attention_tflops: Option<f64>,

    /// One JSON object on standard output
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &PlanArgs) -> Result<()> {
    let (name, request) = asked(args)?;
    match planner::plan(&request) {
        Ok(plan) if args.json => print_json(&json!({
            "fits": true,
            "model": model::metadata(&name, &request),
            "request": request_json(&request),
            "plan": plan,
            "notes": notes::notes(&request),
        })),
        Ok(plan) => print_text(&table::render(&name, &request, &plan)),
        Err(error) if error.is_memory() => {
            let advice = planner::advise(&request);
            if args.json {
                print_json(&json!({
                    "fits": false,
                    "model": model::metadata(&name, &request),
                    "request": request_json(&request),
                    "error": error.to_string(),
                    "stage": table::breakdown(&error),
                    "advice": advice.iter().map(table::advice_json).collect::<Vec<_>>(),
                }))?;
            }
            Err(usage(format!("{error}{}", table::advice(&advice))))
        }
        Err(PlanError::Engine(error)) => Err(error.into()),
        Err(error) => Err(usage(error.to_string())),
    }
}

/// The model's name, and the request.
fn asked(args: &PlanArgs) -> Result<(String, PlanRequest)> {
    let (name, config) = model::open(args.model.as_deref(), args.config.as_deref())?;
    let wrong = |error: &dyn std::fmt::Display| usage(error.to_string());
    let split: Split = args.split.parse().map_err(|error| wrong(&error))?;
    let density: Density = args.density.parse().map_err(|error| wrong(&error))?;
    let context = match &args.context {
        None => config.max_positions,
        Some(text) => one_length("--context", text)?,
    };
    let given = devices::Given {
        memory: args.sizes.memory_limit()?,
        linear: rate("--linear-tflops", args.linear_tflops)?,
        attention: rate("--attention-tflops", args.attention_tflops)?,
        dtype: args.sizes.dtype(),
    };
    let found = devices::find(&args.devices, &config, &given)?;
    let chunk = args.sizes.chunk(found.chunk)?;
    let options = ModelOptions {
        kv: args.sizes.kv_type(),
        ..ModelOptions::default()
    };
    let request = PlanRequest {
        footprint: Footprint::new(found.dtype.size(), &options, found.gpu),
        context,
        max_tokens: args.max_tokens,
        chunk,
        split,
        devices: found.devices,
        density,
        config,
    };
    Ok((name, request))
}

fn rate(flag: &str, tflops: Option<f64>) -> Result<Option<f64>> {
    match tflops {
        Some(rate) if !(rate.is_finite() && rate > 0.0) => {
            Err(usage(format!("{flag} is {rate}, but must be above 0")))
        }
        rate => Ok(rate.map(|rate| rate * 1e12)),
    }
}

fn request_json(request: &PlanRequest) -> serde_json::Value {
    json!({
        "context": request.context,
        "prompt": request.prompt(),
        "max_tokens": request.max_tokens,
        "element_bytes": request.footprint.element,
        "kv_dtype": request.footprint.kv,
        "chunk": request.chunk,
        "split": request.split,
        "density": request.density,
    })
}
