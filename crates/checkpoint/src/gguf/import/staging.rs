//! A directory that appears as a whole or not at all.
//!
//! Files are written to a temporary sibling of the destination, which is renamed at the end. Dropped before that, for whatever
//! reason, it removes itself and the parent directories it had to make.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::CheckpointError;

static SERIAL: AtomicU64 = AtomicU64::new(0);

/// A directory under construction.
#[derive(Debug)]
pub(super) struct Staging {
    temporary: PathBuf,
    destination: PathBuf,
    made_parents: Vec<PathBuf>,
    committed: bool,
}

impl Staging {
    /// Begins. The destination must not exist, or be an empty directory.
    pub(super) fn new(destination: &Path) -> Result<Self, CheckpointError> {
        check_free(destination)?;
        let taken = |what| CheckpointError::OutputExists {
            path: destination.to_path_buf(),
            what,
        };
        let name = destination
            .file_name()
            .ok_or_else(|| taken("no name for a new directory"))?;
        let parent = match destination.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let temporary = format!(
            ".{}.{}-{serial}.partial",
            name.to_string_lossy(),
            std::process::id()
        );
        let mut staging = Self {
            temporary: parent.join(temporary),
            destination: destination.to_path_buf(),
            made_parents: Vec::new(),
            committed: false,
        };
        staging.make_parents(parent)?;
        fs::create_dir(&staging.temporary)
            .map_err(CheckpointError::io("create", &staging.temporary))?;
        Ok(staging)
    }

    /// The temporary directory.
    pub(super) fn path(&self) -> &Path {
        &self.temporary
    }

    /// Puts the finished directory in its place.
    pub(super) fn commit(mut self) -> Result<(), CheckpointError> {
        check_free(&self.destination)?;
        if self.destination.exists() {
            fs::remove_dir(&self.destination)
                .map_err(CheckpointError::io("replace", &self.destination))?;
        }
        fs::rename(&self.temporary, &self.destination).map_err(CheckpointError::io(
            "rename the finished import to",
            &self.destination,
        ))?;
        self.committed = true;
        Ok(())
    }

    fn make_parents(&mut self, parent: &Path) -> Result<(), CheckpointError> {
        let missing: Vec<&Path> = parent
            .ancestors()
            .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
            .collect();
        for path in missing.into_iter().rev() {
            fs::create_dir(path).map_err(CheckpointError::io("create", path))?;
            self.made_parents.push(path.to_path_buf());
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        // Nothing useful can be done about a failure to clean up; the error that led here is the one to report.
        let _ = fs::remove_dir_all(&self.temporary);
        for path in self.made_parents.iter().rev() {
            let _ = fs::remove_dir(path);
        }
    }
}

fn check_free(destination: &Path) -> Result<(), CheckpointError> {
    let taken = |what| {
        Err(CheckpointError::OutputExists {
            path: destination.to_path_buf(),
            what,
        })
    };
    match fs::symlink_metadata(destination) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(CheckpointError::io("examine", destination)(error)),
        Ok(metadata) if !metadata.is_dir() => taken("not a directory"),
        Ok(_) => match fs::read_dir(destination)
            .map_err(CheckpointError::io("read", destination))?
            .next()
        {
            None => Ok(()),
            Some(_) => taken("not empty"),
        },
    }
}
