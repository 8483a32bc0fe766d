//! Two folders: the repository and the data folder.
//!
//! The data folder is `.data/` in the repository root unless `SPARSE_ACCELERATE_DATA` names
//! another one. Whatever is missing below it is made by the step that needs it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Environment variable that moves the data folder.
pub(crate) const DATA_ENV: &str = "SPARSE_ACCELERATE_DATA";

/// The folders every command works in; both paths are absolute.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// Repository root.
    pub(crate) root: PathBuf,
    /// Data folder: downloads, converted models, LLVM.
    pub(crate) data: PathBuf,
}

impl Layout {
    /// Finds both folders from this package's place in the workspace and the environment.
    pub(crate) fn find() -> Result<Self> {
        let package = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = package
            .parent()
            .with_context(|| format!("{} has no parent folder", package.display()))?
            .to_path_buf();
        let data = match std::env::var_os(DATA_ENV).filter(|value| !value.is_empty()) {
            Some(path) => std::path::absolute(&path)
                .with_context(|| format!("{DATA_ENV}={} is not a path", path.display()))?,
            None => root.join(".data"),
        };
        Ok(Self { root, data })
    }

    /// Verified downloads.
    pub(crate) fn downloads(&self) -> PathBuf {
        self.data.join("downloads")
    }

    /// A path as a reader wants it: relative to the repository when inside it.
    pub(crate) fn show(&self, path: &Path) -> String {
        path.strip_prefix(&self.root)
            .unwrap_or(path)
            .display()
            .to_string()
    }
}
