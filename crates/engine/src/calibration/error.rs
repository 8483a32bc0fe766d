//! Why a calibration cannot be read or kept.

use std::{io, path::PathBuf};

use thiserror::Error;

/// A calibration that cannot be read or kept.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CalibrationError {
    /// There is nowhere to keep it.
    #[error("calibration: no cache directory is known; set SPARSE_ACCELERATE_CACHE to a folder")]
    NoCacheDir,
    /// The file is there, but cannot be read.
    #[error("{}: cannot be read ({source}); remove it or make it readable", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The file is no calibration, or one of another version.
    #[error(
        "{}: is no calibration of this version ({reason}); run `sparse-accelerate calibrate` again or \
         remove the file", .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file cannot be written.
    #[error("{}: cannot be written ({source}); --out names another file", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}
