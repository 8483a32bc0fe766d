//! GGUF to a Hugging Face model directory.
//!
//! `run` is the sequence; `config`, `gemma`, `rope`, `longrope`, `tokenizer` and `names` translate metadata and names; `convert` turns
//! tensors into the target type; `writer` streams the safetensors file; `staging` makes the result appear as a whole or not at all. The
//! result holds exactly the numbers a GGUF runtime works with, not those of the unquantised original.

mod config;
mod convert;
mod gemma;
mod longrope;
mod names;
mod rope;
mod run;
mod staging;
mod tokenizer;
mod writer;

#[cfg(test)]
mod tests;

pub(crate) use config::{architecture, takes};
pub use run::{ImportOptions, ImportProgress, ImportSummary, import_gguf};
pub(crate) use tokenizer::rules;
