//! Inspection of a model directory, a .safetensors file or a .gguf file.
//!
//! Describes also what cannot be loaded (other architectures, other dtypes), as long as the file itself is sound. Shapes are
//! slowest dimension first for all three. Serialises to JSON as it stands.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::files::{SMALL_FILE, read_required};
use crate::gguf::GgufFile;
use crate::weights::{Shard, ShardTensor};
use crate::{CheckpointError, Weights};

/// Kind of file or folder that was inspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum InspectionKind {
    /// A Hugging Face model directory.
    ModelDir,
    /// A single safetensors file.
    Safetensors,
    /// A GGUF file.
    Gguf,
}

/// One tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TensorEntry {
    /// Name of the tensor in the file.
    pub name: String,
    /// Element format of the tensor as the file names it: `BF16`, `Q4_K`.
    pub dtype: String,
    /// Slowest dimension first.
    pub shape: Vec<usize>,
    /// Size of the tensor in bytes.
    pub bytes: u64,
}

/// A description of a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// Kind of the inspected file or folder.
    pub kind: InspectionKind,
    /// The path given.
    pub path: PathBuf,
    /// Fields of config.json, or the metadata of a GGUF file with long arrays shortened; empty for a single safetensors file.
    pub metadata: BTreeMap<String, Value>,
    /// All tensors: by name for a directory, in file order otherwise.
    pub tensors: Vec<TensorEntry>,
    /// Number of elements of all tensors.
    pub elements: u64,
    /// Bytes of all tensors.
    pub total_bytes: u64,
}

/// Describes a model directory, a .safetensors file or a .gguf file.
///
/// # Errors
/// [`CheckpointError::UnknownFormat`] for anything else, and the errors of reading the three formats.
pub fn inspect(path: &Path) -> Result<Inspection, CheckpointError> {
    let extension = path
        .extension()
        .map(|extension| extension.to_string_lossy().to_lowercase());
    let (kind, metadata, tensors) = match extension.as_deref() {
        _ if path.is_dir() => model_dir(path)?,
        Some("safetensors") => (
            InspectionKind::Safetensors,
            BTreeMap::new(),
            safetensors(path)?,
        ),
        Some("gguf") => gguf(path)?,
        _ => {
            return Err(CheckpointError::UnknownFormat {
                path: path.to_path_buf(),
            });
        }
    };
    let count = |tensor: &TensorEntry| {
        tensor
            .shape
            .iter()
            .map(|&dim| dim as u64)
            .fold(1, u64::saturating_mul)
    };
    Ok(Inspection {
        kind,
        path: path.to_path_buf(),
        metadata,
        elements: tensors.iter().map(count).fold(0, u64::saturating_add),
        total_bytes: tensors.iter().map(|tensor| tensor.bytes).sum(),
        tensors,
    })
}

type Parts = (InspectionKind, BTreeMap<String, Value>, Vec<TensorEntry>);

fn model_dir(path: &Path) -> Result<Parts, CheckpointError> {
    let hint = "it says what the model is";
    let text = read_required(path, "config.json", SMALL_FILE, hint)?;
    let metadata = serde_json::from_str(&text).map_err(|source| CheckpointError::Json {
        path: path.join("config.json"),
        source,
    })?;
    let weights = Weights::open(path)?;
    let tensors = weights
        .describe()
        .map(|(name, dtype, shape, bytes)| TensorEntry {
            name: name.to_owned(),
            dtype,
            shape: shape.to_vec(),
            bytes,
        })
        .collect();
    Ok((InspectionKind::ModelDir, metadata, tensors))
}

fn safetensors(path: &Path) -> Result<Vec<TensorEntry>, CheckpointError> {
    let shard = Shard::open(path)?;
    let entry = |tensor: &ShardTensor| TensorEntry {
        name: tensor.name.clone(),
        dtype: tensor.dtype.to_string(),
        shape: tensor.shape.clone(),
        bytes: tensor.range.len() as u64,
    };
    Ok(shard.tensors.iter().map(entry).collect())
}

fn gguf(path: &Path) -> Result<Parts, CheckpointError> {
    let file = GgufFile::open(path)?;
    let mut metadata: BTreeMap<String, Value> = file
        .metadata
        .iter()
        .map(|(key, value)| (key.clone(), value.to_json()))
        .collect();
    metadata.insert("GGUF.version".to_owned(), file.version.into());
    let tensors = file
        .tensors
        .iter()
        .map(|tensor| TensorEntry {
            name: tensor.name.clone(),
            dtype: tensor.kind.name().to_owned(),
            shape: tensor.shape(),
            bytes: tensor.bytes,
        })
        .collect();
    Ok((InspectionKind::Gguf, metadata, tensors))
}
