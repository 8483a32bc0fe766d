//! GGUF files: read, described, and imported into a Hugging Face model directory.
//!
//! `file` maps and checks a file (`cursor`, `value`, `metadata`, `table` are its parts), `kind` knows the block formats,
//! `dequant` turns blocks into f32, `import` writes the directory. The importer takes the architectures and tokenizers that
//! [`crate::ModelDir`] can use and refuses others by name.

mod cursor;
mod dequant;
mod file;
mod import;
mod kind;
mod metadata;
mod table;
mod value;

pub(crate) use file::GgufFile;
pub use import::{ImportOptions, ImportProgress, ImportSummary, import_gguf};
pub(crate) use import::{architecture, rules, takes};
pub(crate) use kind::readable as readable_formats;
