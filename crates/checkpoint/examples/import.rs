//! Imports a GGUF file into a Hugging Face model directory.
//!
//!   cargo run -p sparse-accelerate-checkpoint --example import -- FILE OUT [f32|f16|bf16] [tie]
//!
//! f32 holds every value of the file exactly and takes the most room. `tie` is for models that tie their embeddings and whose
//! file holds a second table all the same.

use std::path::Path;
use std::process::ExitCode;

use sparse_accelerate_checkpoint::{ImportOptions, WeightDtype, import_gguf};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, out, rest @ ..] = arguments.as_slice() else {
        eprintln!("usage: import FILE OUT [f32|f16|bf16] [tie]");
        return ExitCode::FAILURE;
    };
    let dtype = match rest.first().map(String::as_str) {
        Some("f16") => WeightDtype::F16,
        Some("bf16") => WeightDtype::Bf16,
        _ => WeightDtype::F32,
    };
    let options = ImportOptions {
        dtype,
        tie: rest.iter().any(|word| word == "tie"),
    };
    let result = import_gguf(Path::new(file), Path::new(out), &options, &mut |step| {
        eprint!(
            "\r{:>4} of {} {:<60}",
            step.index + 1,
            step.total,
            step.tensor
        );
    });
    eprintln!();
    match result {
        Ok(summary) => {
            println!(
                "{}: {} tensors, {} parameters, {} bytes as {}",
                summary.path.display(),
                summary.tensors,
                summary.parameters,
                summary.weight_bytes,
                summary.dtype
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
