//! Calibrations on disk: read whole and checked, written beside and moved into place.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use sparse_accelerate::Selection;
use sparse_accelerate_checkpoint::WeightDtype;

use super::{Calibration, CalibrationError, CalibrationKey, SCHEMA, cache_dir};
use crate::device::DeviceInfo;

/// Keeps a calibration in the user's cache directory, in place of one with the same key; gives its file.
///
/// # Errors
/// No cache directory, or one that cannot be written.
pub fn save(calibration: &Calibration) -> Result<PathBuf, CalibrationError> {
    let store = Store::user().ok_or(CalibrationError::NoCacheDir)?;
    let path = store.path(&calibration.key);
    write(&path, calibration)?;
    Ok(path)
}

/// A folder of calibrations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// The store of the user; `None` where no cache directory is known.
    pub fn user() -> Option<Self> {
        Some(Self::below(&cache_dir()?))
    }

    /// The store in a cache directory.
    pub fn below(cache: &Path) -> Self {
        Self {
            dir: cache.join("calibration"),
        }
    }

    /// The file of a key.
    pub fn path(&self, key: &CalibrationKey) -> PathBuf {
        let fit = |c: char| match c {
            c if c.is_ascii_alphanumeric() => c.to_ascii_lowercase(),
            _ => '-',
        };
        let name = format!(
            "{}-{}-{}-d{}-g{}",
            key.backend, key.device, key.dtype, key.head_dim, key.group
        );
        let clean: String = name.chars().map(fit).collect();
        self.dir.join(format!("{clean}.json"))
    }

    /// Reads and checks the calibration of a key; `None` where there is no file.
    ///
    /// # Errors
    /// A file that cannot be read, is damaged, or belongs to another key.
    pub fn load(&self, key: &CalibrationKey) -> Result<Option<Calibration>, CalibrationError> {
        let path = self.path(key);
        let Some(found) = calibration(&path)? else {
            return Ok(None);
        };
        if found.key != *key {
            let reason = format!("it is of {:?}", found.key);
            return Err(CalibrationError::Damaged { path, reason });
        }
        Ok(Some(found))
    }

    /// Lists the files of a device by name, each with its calibration or its error.
    pub fn of_device(
        &self,
        info: &DeviceInfo,
    ) -> Vec<(PathBuf, Result<Calibration, CalibrationError>)> {
        let key = CalibrationKey::new(info, WeightDtype::F32, 0, 0);
        let whole = self.path(&key);
        let name = whole.file_name().unwrap_or_default().to_string_lossy();
        let prefix = name.trim_end_matches("f32-d0-g0.json");
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        let of_device = |path: PathBuf| {
            let name = path.file_name()?.to_str()?.strip_suffix(".json")?;
            name.starts_with(prefix).then_some(())?;
            let found = calibration(&path).transpose()?;
            let same = |found: &Calibration| {
                (&found.key.device, &found.key.backend) == (&key.device, &key.backend)
            };
            match &found {
                Ok(other) if !same(other) => None,
                _ => Some((path, found)),
            }
        };
        paths.into_iter().filter_map(of_device).collect()
    }
}

fn calibration(path: &Path) -> Result<Option<Calibration>, CalibrationError> {
    let found = read(path, |found: &Calibration| found.schema)?;
    let selection = |costs| Selection {
        costs,
        ..Selection::default()
    };
    if let Some(found) = &found
        && let Err(error) = selection(found.costs).validate()
    {
        let (path, reason) = (path.into(), error.to_string());
        return Err(CalibrationError::Damaged { path, reason });
    }
    Ok(found)
}

/// Reads a file of this version; `None` where there is none.
///
/// # Errors
/// [`CalibrationError`]: it cannot be read, or is damaged.
pub(super) fn read<T: DeserializeOwned>(
    path: &Path,
    schema: impl Fn(&T) -> u32,
) -> Result<Option<T>, CalibrationError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(CalibrationError::Read {
                path: path.into(),
                source,
            });
        }
    };
    let damaged = |reason: String| CalibrationError::Damaged {
        path: path.into(),
        reason,
    };
    let found: T = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    let schema = schema(&found);
    if schema != SCHEMA {
        return Err(damaged(format!("schema {schema}, not {SCHEMA}")));
    }
    Ok(Some(found))
}

/// Writes a calibration or a record so that a reader sees all of it or none.
///
/// # Errors
/// [`CalibrationError::Write`].
pub(super) fn write(path: &Path, measured: &impl Serialize) -> Result<(), CalibrationError> {
    let failed = |source| CalibrationError::Write {
        path: path.into(),
        source,
    };
    let mut text = serde_json::to_vec_pretty(measured).map_err(|e| failed(e.into()))?;
    text.push(b'\n');
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(failed)?;
    }
    let beside = path.with_extension(format!("{}.tmp", std::process::id()));
    let put = || -> io::Result<()> {
        let mut file = fs::File::create(&beside)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    put().map_err(|error| {
        // What is left of a failed write is of no use; the error matters.
        let _ = fs::remove_file(&beside);
        failed(error)
    })
}

impl Calibration {
    /// Writes it to a file of the caller's choice.
    ///
    /// # Errors
    /// [`CalibrationError::Write`].
    pub fn write(&self, path: &Path) -> Result<(), CalibrationError> {
        write(path, self)
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
