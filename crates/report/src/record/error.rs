//! Errors of run files, each with the way out.

use std::{io, path::PathBuf};

use thiserror::Error;

/// A run file that cannot be written, read or gone on with.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The file cannot be opened or made.
    #[error("{}: cannot be opened for writing ({source}); name another file", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The file cannot be read.
    #[error("{}: cannot be read ({source})", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// Another process writes to it.
    #[error(
        "{}: another run is writing to it; wait for that one or name another file",
        path.display()
    )]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file system has no locks, so two runs could mix their lines.
    #[error(
        "{}: cannot be locked against a second run ({source}); name a file on another file \
         system",
        path.display()
    )]
    NoLock {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The disk has no room for the next row.
    #[error(
        "{}: the disk is full. The {rows} rows finished before are safe; free some space and run the \
         same command again",
        path.display()
    )]
    Full {
        /// The file.
        path: PathBuf,
        /// Rows in the file.
        rows: usize,
    },
    /// A row cannot be written, for another reason.
    #[error(
        "{}: cannot be written ({source}). The {rows} rows finished before are safe; run the same \
         command again to go on",
        path.display()
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// Rows in the file.
        rows: usize,
        /// The system's words.
        source: io::Error,
    },
    /// The first line of the file is no header.
    #[error(
        "{}: not a run file (line 1: {reason}); nothing was changed, name another file",
        path.display()
    )]
    NotARunFile {
        /// The file.
        path: PathBuf,
        /// Reason in words.
        reason: String,
    },
    /// A complete line in it means nothing.
    #[error(
        "{}: line {line} is damaged ({reason}); remove that line to have its row run again, or name \
         another file",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Reason in words.
        reason: String,
    },
    /// The file belongs to another run.
    #[error(
        "{}: holds another run: {field} is {in_file} there, but {asked} here. Name another file, or \
         ask for the same",
        path.display()
    )]
    OtherRun {
        /// The file.
        path: PathBuf,
        /// Name of the field that differs.
        field: String,
        /// Value of the field in the file.
        in_file: String,
        /// Value of the field in this run.
        asked: String,
    },
}

impl RecordError {
    /// Tells whether another file would help.
    pub fn wants_another_file(&self) -> bool {
        match self {
            Self::Open { .. }
            | Self::Locked { .. }
            | Self::NoLock { .. }
            | Self::NotARunFile { .. }
            | Self::Damaged { .. }
            | Self::OtherRun { .. } => true,
            Self::Read { .. } | Self::Full { .. } | Self::Write { .. } => false,
        }
    }
}
