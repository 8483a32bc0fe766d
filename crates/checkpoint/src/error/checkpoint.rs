//! The crate's error type.
//!
//! Variants about one tensor name it; variants about one file carry its path. The enum is non-exhaustive: match the variants
//! you act on and print the rest.

use std::path::{Path, PathBuf};

use super::{ConfigError, GgufError, IndexError, SafeTensorsError, TextError};

/// Errors of opening, reading or importing a checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The operating system refused a file operation (a missing right, a full disk, a vanished file).
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// Operation that failed, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The path does not lead to a directory.
    #[error(
        "{path} is not a directory: a model is a directory with config.json, tokenizer.json and *.safetensors{hint}"
    )]
    NotADirectory {
        /// The path given.
        path: PathBuf,
        /// The way out, empty when there is none to offer.
        hint: &'static str,
    },
    /// A file that every model directory needs is absent.
    #[error("{dir} has no {file}: {hint}")]
    MissingFile {
        /// The model directory.
        dir: PathBuf,
        /// The file looked for.
        file: &'static str,
        /// The way out.
        hint: &'static str,
    },
    /// A text file is far larger than any real one.
    #[error(
        "{path} is {bytes} bytes, over the limit of {limit} for this file: it is not what its name says"
    )]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Size of the file in bytes.
        bytes: u64,
        /// The largest size read, in bytes.
        limit: u64,
    },
    /// A file was never fetched: Git LFS left a pointer to it.
    #[error(
        "{path}: this is a Git LFS pointer: fetch the file{}, by `git lfs pull` in its folder or from where the model was published",
        .bytes.map_or_else(String::new, |bytes| format!(" ({bytes} bytes)"))
    )]
    LfsPointer {
        /// The file.
        path: PathBuf,
        /// Size of the file that it stands for, where the pointer has it.
        bytes: Option<u64>,
    },
    /// A JSON file does not parse.
    #[error("{path} is not valid JSON: {source}; fetch the file again")]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's answer, with line and column.
        source: serde_json::Error,
    },
    /// A value in config.json or generation_config.json is missing, contradicting or unsupported.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The tokenizer has ids that the embedding table does not.
    #[error(
        "tokenizer.json has ids up to {tokenizer_max} but config.json has vocab_size {vocab_size}: the two files are of different models"
    )]
    VocabMismatch {
        /// The largest token id of the tokenizer.
        tokenizer_max: usize,
        /// Rows of the embedding table.
        vocab_size: usize,
    },
    /// The tokenizer or the chat template failed.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A safetensors file breaks its format.
    #[error("{path}: {source}")]
    SafeTensors {
        /// The file.
        path: PathBuf,
        /// The fault.
        source: SafeTensorsError,
    },
    /// The shards do not match model.safetensors.index.json.
    #[error("{path}: {source}")]
    Index {
        /// The index file.
        path: PathBuf,
        /// The fault.
        source: IndexError,
    },
    /// A GGUF file breaks its format, or holds what the importer does not support.
    #[error("{path}: {source}")]
    Gguf {
        /// The file.
        path: PathBuf,
        /// The fault.
        source: GgufError,
    },
    /// A tensor was asked for twice.
    #[error("tensor {name} was taken already: each tensor of a checkpoint is loaded once")]
    TensorTwice {
        /// The tensor.
        name: String,
    },
    /// A tensor was asked for that no file holds.
    #[error("tensor {name} is in no file of the checkpoint{}", near_names(.near))]
    MissingTensor {
        /// The tensor.
        name: String,
        /// Up to three names of the checkpoint that look alike.
        near: Vec<String>,
    },
    /// A tensor has another shape than the config implies.
    #[error(
        "tensor {name} has shape {got:?}, config.json implies {expected:?}: config and weights are of different models"
    )]
    TensorShape {
        /// The tensor.
        name: String,
        /// The shape in the file.
        got: Vec<usize>,
        /// The shape asked for.
        expected: Vec<usize>,
    },
    /// A tensor has an element type that is no plain float.
    #[error(
        "tensor {name} is {got}, supported are F32, F16 and BF16: use an unquantised release of the model"
    )]
    TensorDtype {
        /// The tensor.
        name: String,
        /// The element type in the file.
        got: String,
    },
    /// The checkpoint holds tensors that the model never asked for.
    #[error("{count} tensors of the checkpoint are not used by this model, among them {}: is the config of another model?", .names.join(", "))]
    TensorsUnused {
        /// The first names, at most eight.
        names: Vec<String>,
        /// Number of such tensors in all.
        count: usize,
    },
    /// The import's destination is not free.
    #[error("{path} exists and is {what}: give a path that does not exist, or an empty directory")]
    OutputExists {
        /// The destination.
        path: PathBuf,
        /// Description of the entry in the way.
        what: &'static str,
    },
    /// `inspect` was given something it does not know.
    #[error("{path} is no model directory, .safetensors file or .gguf file: give one of the three")]
    UnknownFormat {
        /// The path given.
        path: PathBuf,
    },
}

impl CheckpointError {
    /// Wraps a system error: `map_err(CheckpointError::io("read", path))`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// Adds the path to a safetensors fault.
    pub(crate) fn safetensors(path: &Path) -> impl FnOnce(SafeTensorsError) -> Self {
        let path = path.to_path_buf();
        move |source| Self::SafeTensors { path, source }
    }

    /// Adds the path to a GGUF fault.
    pub(crate) fn gguf(path: &Path) -> impl Fn(GgufError) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Gguf {
            path: path.clone(),
            source,
        }
    }
}

fn near_names(near: &[String]) -> String {
    if near.is_empty() {
        "; list what it holds with `inspect`".to_owned()
    } else {
        format!("; near names: {}", near.join(", "))
    }
}
