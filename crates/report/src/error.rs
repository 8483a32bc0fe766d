//! Errors of showing a run file.

use std::path::PathBuf;

use thiserror::Error;

use crate::record::RecordError;

/// A run file that cannot be shown.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The file cannot be read, is no run file, or holds a line without meaning.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A header further down: two runs in one file.
    #[error(
        "{path}: line {line} is a second header; files of two runs were joined. Give them as two \
         files", path = .path.display()
    )]
    Mixed {
        /// The file.
        path: PathBuf,
        /// The line of the second header, from 1.
        line: usize,
    },
}
