//! Errors of reading and keeping calibrations.

use std::{io, path::PathBuf};

use thiserror::Error;

/// Error of a calibration that cannot be read or kept.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CalibrationError {
    /// No folder to keep it in is known.
    #[error("calibration: no cache directory is known; set SPARSE_ACCELERATE_CACHE to a folder")]
    NoCacheDir,
    /// The file is there, but cannot be read.
    #[error("{}: cannot be read ({source}); remove it or make it readable", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Error of the system.
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
        /// The defect.
        reason: String,
    },
    /// The file cannot be written.
    #[error("{}: cannot be written ({source}); name another file", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
}
