//! Imports a built GGUF file below a temporary directory.
//!
//! The output is two levels deep, so that a failed import also has a parent directory to clean up.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use sparse_accelerate_checkpoint::{
    CheckpointError, GgufError, ImportOptions, ImportSummary, ModelDir, WeightDtype, import_gguf,
};
use tempfile::TempDir;

use super::gguf_file::GgufBuilder;
use super::put;

pub(crate) const F32: ImportOptions = ImportOptions {
    dtype: WeightDtype::F32,
    tie: false,
};

pub(crate) fn import(
    gguf: &GgufBuilder,
    options: &ImportOptions,
) -> (TempDir, Result<ImportSummary, CheckpointError>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    put(dir.path(), "x.gguf", &gguf.bytes());
    let result = import_gguf(
        &dir.path().join("x.gguf"),
        &dir.path().join("sub/out"),
        options,
        &mut |_| {},
    );
    (dir, result)
}

pub(crate) fn imported(gguf: &GgufBuilder, options: &ImportOptions) -> (TempDir, ModelDir) {
    let (dir, result) = import(gguf, options);
    let summary = result.expect("a sound file");
    let model = ModelDir::open(summary.path).expect("the output opens");
    (dir, model)
}

pub(crate) fn refused(gguf: &GgufBuilder) -> GgufError {
    let (dir, result) = import(gguf, &F32);
    assert_eq!(listing(dir.path()), ["x.gguf"], "nothing is left behind");
    match result {
        Err(CheckpointError::Gguf { source, .. }) => source,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

pub(crate) fn listing(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir)
        .expect("readable")
        .map(|entry| entry.expect("readable").file_name());
    entries
        .map(|name| name.to_string_lossy().into_owned())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

pub(crate) fn values(gguf: &GgufBuilder, name: &str) -> Vec<f32> {
    let tensor = gguf
        .tensors
        .iter()
        .find(|tensor| tensor.name == name)
        .expect("there");
    tensor
        .data
        .as_chunks::<4>()
        .0
        .iter()
        .map(|word| f32::from_le_bytes(*word))
        .collect()
}
