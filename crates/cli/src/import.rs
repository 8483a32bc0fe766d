//! `import`: a GGUF file becomes a Hugging Face model directory.
//!
//! The numbers are those a GGUF runtime works with, dequantised; they are not the original release's.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use sparse_accelerate_checkpoint::{ImportOptions, import_gguf};
use sparse_accelerate_engine::memory::Bytes;

use crate::{
    args::Dtype,
    exit::usage,
    output::print_text,
    progress::{Meter, Unit},
};

const EXAMPLES: &str = "\
Example:
  sparse-accelerate import model.Q4_K_M.gguf model-dir --dtype f16";

/// Arguments of `import`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ImportArgs {
    /// The GGUF file (architecture llama, phi3, qwen2 or qwen3)
    #[arg(value_name = "GGUF")]
    gguf: PathBuf,

    /// Directory to make; must not exist or be empty
    #[arg(value_name = "OUT_DIR")]
    out: PathBuf,

    /// Type of the written weights; f32 holds every GGUF value exactly
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    dtype: Dtype,

    /// Use the output table as embedding table too, for models that tie the two
    #[arg(long)]
    tie: bool,
}

/// Runs the command.
pub(crate) fn run(args: &ImportArgs) -> Result<()> {
    if !args.gguf.is_file() {
        return Err(usage(format!("{}: no such file", args.gguf.display())));
    }
    let options = ImportOptions {
        dtype: args.dtype.into(),
        tie: args.tie,
    };
    let mut meter = Meter::new("converting", Unit::Tensors);
    let summary = import_gguf(&args.gguf, &args.out, &options, &mut |progress| {
        meter.set(progress.index as u64, progress.total as u64);
    })?;
    meter.finish(summary.tensors as u64);
    let tied = if summary.tied_embeddings {
        ", tied embeddings"
    } else {
        ""
    };
    print_text(&format!(
        "{}: {:?}, {} parameters, {} of {} weights{tied}\n",
        summary.path.display(),
        summary.architecture,
        summary.parameters,
        Bytes(summary.weight_bytes),
        summary.dtype,
    ))
}
