//! `inspect`: what a model directory, a safetensors file or a GGUF file holds.
//!
//! Works on models that cannot be run too; for those it is the way to see why.

use std::{
    fmt::{self, Write},
    path::PathBuf,
};

use anyhow::Result;
use clap::Args;
use sparse_accelerate_checkpoint::{Inspection, inspect};
use sparse_accelerate_engine::memory::Bytes;

use crate::{
    exit::usage,
    output::{print_json, print_text},
};

/// Longest metadata value printed whole.
const VALUE_CHARS: usize = 100;

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Model directory, .safetensors file or .gguf file
    #[arg(value_name = "DIR|FILE")]
    path: PathBuf,

    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &InspectArgs) -> Result<()> {
    if !args.path.exists() {
        return Err(usage(format!(
            "{}: no such file or directory",
            args.path.display()
        )));
    }
    let inspection = inspect(&args.path)?;
    if args.json {
        return print_json(&inspection);
    }
    print_text(&render(&inspection)?)
}

fn render(model: &Inspection) -> Result<String, fmt::Error> {
    let mut out = String::new();
    writeln!(
        out,
        "{}: {:?}, {} tensors, {} elements, {}",
        model.path.display(),
        model.kind,
        model.tensors.len(),
        model.elements,
        Bytes(model.total_bytes),
    )?;
    if !model.metadata.is_empty() {
        writeln!(out)?;
    }
    for (key, value) in &model.metadata {
        let text = value.to_string();
        let shown: String = text.chars().take(VALUE_CHARS).collect();
        let cut = if shown.len() < text.len() { " ..." } else { "" };
        writeln!(out, "{key} = {shown}{cut}")?;
    }
    if !model.notes.is_empty() {
        writeln!(out)?;
    }
    for note in &model.notes {
        writeln!(out, "note: {note}")?;
    }
    writeln!(out)?;
    let width = model
        .tensors
        .iter()
        .map(|t| t.name.len())
        .max()
        .unwrap_or(0);
    for tensor in &model.tensors {
        let mark = if tensor.supported {
            ""
        } else {
            "  cannot be run"
        };
        let shape: Vec<_> = tensor.shape.iter().map(ToString::to_string).collect();
        writeln!(
            out,
            "{:<width$}  {:<6} {:>10}  [{}]{}",
            tensor.name,
            tensor.dtype,
            Bytes(tensor.bytes).to_string(),
            shape.join(", "),
            mark,
        )?;
    }
    Ok(out)
}
