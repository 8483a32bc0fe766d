//! A model's own record on a device: what its prompts take dense and sparse, and the density that it chose.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sparse_accelerate::AttentionSettings;

use super::{BreakEven, CalibrationError, CalibrationKey, SCHEMA, Store, store};

/// Times and densities of a model on a device, length by length; what `auto` goes by for that model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRecord {
    /// Version of the format, [`SCHEMA`].
    pub schema: u32,
    /// Device, element type and layer shape.
    pub key: CalibrationKey,
    /// Outline of the model, hexadecimal: its configuration, and names and sizes of its weights.
    pub model: String,
    /// Version of the program that measured.
    pub version: String,
    /// SHA-256 of the text that the prompts are from, hexadecimal.
    pub text: String,
    /// Measured lengths, ascending.
    pub lengths: Vec<LengthRecord>,
    /// The break-even length.
    pub break_even: BreakEven,
}

/// One length of a model's record.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LengthRecord {
    /// Prompt tokens.
    pub tokens: usize,
    /// Median seconds to the first token, dense.
    pub dense_s: f64,
    /// The same of preset `balanced`.
    pub sparse_s: f64,
    /// Share of the causal (query, key) pairs that `balanced` computed.
    pub density: f64,
}

impl ModelRecord {
    /// Makes the record of what was measured; lengths may come in any order.
    pub fn new(
        key: CalibrationKey,
        model: String,
        version: String,
        text: String,
        mut lengths: Vec<LengthRecord>,
    ) -> Self {
        lengths.sort_by_key(|length| length.tokens);
        let ratio = |length: &LengthRecord| (length.tokens, length.sparse_s / length.dense_s);
        let ratios: Vec<_> = lengths.iter().map(ratio).collect();
        Self {
            schema: SCHEMA,
            key,
            model,
            version,
            text,
            lengths,
            break_even: BreakEven::of(&ratios),
        }
    }

    /// Writes the least sparse length, where it is known, into settings whose pattern chooses from the input. Returns
    /// false for other settings, which stay as they are.
    pub fn apply(&self, settings: &mut AttentionSettings) -> bool {
        let length = self.break_even.min_sparse_len();
        let Some(length) = length.filter(|_| settings.selects()) else {
            return false;
        };
        settings.min_sparse_len = length;
        true
    }

    /// Keeps it in the user's cache directory, in place of one of the same model and key; gives its file.
    ///
    /// # Errors
    /// No cache directory, or one that cannot be written.
    pub fn save(&self) -> Result<PathBuf, CalibrationError> {
        let store = Store::user().ok_or(CalibrationError::NoCacheDir)?;
        let path = store.record_path(&self.key, &self.model);
        self.write(&path)?;
        Ok(path)
    }

    /// Writes it to a file of the caller's choice.
    ///
    /// # Errors
    /// [`CalibrationError::Write`].
    pub fn write(&self, path: &Path) -> Result<(), CalibrationError> {
        store::write(path, self)
    }
}

impl Store {
    /// The file of a model's record.
    pub fn record_path(&self, key: &CalibrationKey, model: &str) -> PathBuf {
        let short: String = model.chars().take(16).collect();
        let of_key = self.path(key);
        let stem = of_key.file_stem().unwrap_or_default().to_string_lossy();
        let dir = of_key.parent().unwrap_or(Path::new(""));
        dir.join("models").join(format!("{stem}-{short}.json"))
    }

    /// Reads and checks the record of a model; `None` where there is no file.
    ///
    /// # Errors
    /// A file that cannot be read, is damaged, or belongs to another key or model.
    pub fn record(
        &self,
        key: &CalibrationKey,
        model: &str,
    ) -> Result<Option<ModelRecord>, CalibrationError> {
        let path = self.record_path(key, model);
        let Some(found) = store::read::<ModelRecord>(&path, |found| found.schema)? else {
            return Ok(None);
        };
        if found.key != *key || found.model != model {
            let reason = format!("it is of {:?}, model {}", found.key, found.model);
            return Err(CalibrationError::Damaged { path, reason });
        }
        Ok(Some(found))
    }
}
