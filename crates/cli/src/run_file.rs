//! Headers of the run files that `eval` and `bench` write.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value};
use sparse_accelerate_checkpoint::ModelDir;
use sparse_accelerate_eval::{commit, model_hash, utc_now, version};
use sparse_accelerate_report::record::{Header, ModelMetadata, SCHEMA, WeightSource};

/// Contents of a header besides time, version and arguments.
pub(crate) struct About {
    pub(crate) command: String,
    pub(crate) seed: u64,
    pub(crate) model: Option<ModelMetadata>,
    pub(crate) device: String,
    pub(crate) dtype: String,
    pub(crate) chunk: usize,
    pub(crate) settings: Map<String, Value>,
}

impl About {
    /// The header of a run that begins now.
    pub(crate) fn header(self) -> Header {
        Header {
            schema: SCHEMA,
            command: self.command,
            arguments: std::env::args().skip(1).collect(),
            version: version(),
            commit: commit(),
            started: utc_now(),
            seed: self.seed,
            model: self.model,
            device: self.device,
            dtype: self.dtype,
            chunk: self.chunk,
            settings: self.settings,
        }
    }
}

/// Describes a model directory; hashes it, with the bytes done and all of them to `progress`.
pub(crate) fn checkpoint_metadata(
    dir: &ModelDir,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<ModelMetadata> {
    let path = dir.path().join("config.json");
    let text = std::fs::read_to_string(&path);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    let config = serde_json::from_str(&text);
    let folder = dir.path().canonicalize();
    Ok(ModelMetadata {
        name: name_of(&folder.unwrap_or_else(|_| dir.path().to_owned())),
        hash: Some(model_hash(dir.path(), progress)?),
        weights: WeightSource::Checkpoint,
        parameters: dir.config().parameter_count(),
        config: config.with_context(|| format!("cannot read {}", path.display()))?,
    })
}

/// The last part of a path.
pub(crate) fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}
