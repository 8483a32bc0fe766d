//! Inspection of a model directory, a .safetensors file or a .gguf file.
//!
//! Describes also what cannot be loaded (other architectures, other dtypes, big-endian GGUF), as long as the file itself is
//! sound, and marks it: tensors one by one, and in notes that say why. Shapes are slowest dimension first for all three.
//! Serialises to JSON as it stands.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::files::{SMALL_FILE, read_required};
use crate::gguf::{GgufFile, architecture};
use crate::weights::{Shard, ShardTensor};
use crate::{CheckpointError, GgufError, ModelConfig, WeightDtype, Weights, json};

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
    /// Size of the tensor in bytes; in a GGUF format of unknown size, the bytes before the next tensor.
    pub bytes: u64,
    /// True if tensors of this element format are run (from a GGUF file: imported).
    pub supported: bool,
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
    /// Reasons for which it cannot be run as it is, a sentence each; empty where none is known.
    pub notes: Vec<String>,
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
    let (kind, metadata, tensors, mut notes) = match extension.as_deref() {
        _ if path.is_dir() => model_dir(path)?,
        Some("safetensors") => {
            let tensors = Shard::open(path)?.tensors.iter().map(entry).collect();
            let kind = InspectionKind::Safetensors;
            (kind, BTreeMap::new(), tensors, Vec::new())
        }
        Some("gguf") => gguf(path)?,
        _ => {
            return Err(CheckpointError::UnknownFormat {
                path: path.to_path_buf(),
            });
        }
    };
    notes.extend(unsupported(&tensors));
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
        notes,
        elements: tensors.iter().map(count).fold(0, u64::saturating_add),
        total_bytes: tensors.iter().map(|tensor| tensor.bytes).sum(),
        tensors,
    })
}

type Parts = (
    InspectionKind,
    BTreeMap<String, Value>,
    Vec<TensorEntry>,
    Vec<String>,
);

fn model_dir(path: &Path) -> Result<Parts, CheckpointError> {
    let hint = "it says what the model is";
    let text = read_required(path, "config.json", SMALL_FILE, hint)?;
    let parsed = json::parse(&text).and_then(serde_json::from_value);
    let metadata = parsed.map_err(|source| CheckpointError::Json {
        path: path.join("config.json"),
        source,
    })?;
    let config = ModelConfig::from_json(&text);
    let notes = config.err().map(|error| error.to_string());
    let weights = Weights::open(path)?;
    let tensors = weights.stored().into_iter().map(entry).collect();
    let notes = notes.into_iter().collect();
    Ok((InspectionKind::ModelDir, metadata, tensors, notes))
}

fn entry(tensor: &ShardTensor) -> TensorEntry {
    TensorEntry {
        name: tensor.name.clone(),
        dtype: tensor.dtype.to_string(),
        shape: tensor.shape.clone(),
        bytes: tensor.range.len() as u64,
        supported: WeightDtype::from_safetensors(tensor.dtype).is_some(),
    }
}

fn gguf(path: &Path) -> Result<Parts, CheckpointError> {
    let file = GgufFile::open(path)?;
    let mut metadata: BTreeMap<String, Value> = file
        .metadata
        .iter()
        .map(|(key, value)| (key.clone(), value.to_json()))
        .collect();
    metadata.insert("GGUF.version".to_owned(), file.version.into());
    let mut notes = Vec::new();
    if file.big_endian {
        metadata.insert("GGUF.byte_order".to_owned(), "big endian".into());
        notes.push(GgufError::BigEndian.to_string());
    }
    if let Err(error @ GgufError::Unsupported { .. }) = architecture(&file.metadata) {
        notes.push(error.to_string());
    }
    let tensors = file
        .tensors
        .iter()
        .map(|tensor| TensorEntry {
            name: tensor.name.clone(),
            dtype: tensor.format.name(),
            shape: tensor.shape(),
            bytes: tensor.bytes,
            supported: tensor.format.kind().is_some(),
        })
        .collect();
    Ok((InspectionKind::Gguf, metadata, tensors, notes))
}

/// A note on every element format that is not run, with the number of its tensors.
fn unsupported(tensors: &[TensorEntry]) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for tensor in tensors.iter().filter(|tensor| !tensor.supported) {
        *counts.entry(&tensor.dtype).or_default() += 1;
    }
    counts
        .into_iter()
        .map(|(dtype, count)| format!("{count} tensors are {dtype}, which cannot be run"))
        .collect()
}
