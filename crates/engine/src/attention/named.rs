//! Attentions by name, as a comparison lists them: `dense,triangular:sink=64:window=512,balanced:recall=0.97`.
//!
//! An item is a name with parameters after colons; `baseline:minference:vertical=500` is a published selector
//! with its own. The text itself names the rows of a run, so it may stand only once. Everything but `auto` is sparse (or dense) whatever the length of the prompt: a comparison at
//! 2K tokens that is dense in secret compares nothing.

use std::path::Path;

use sha2::{Digest, Sha256};
use sparse_accelerate::{
    AttentionMode, AttentionSettings, HeadPatterns, ParseError, Pattern, Preset,
};
use sparse_accelerate_baselines::Baseline;
use thiserror::Error;

use super::heads::read_heads;

/// Every name that [`parse_attentions`] knows.
pub const ATTENTIONS: [&str; 16] = [
    "dense",
    "exact",
    "auto",
    "sparse",
    "triangular",
    "interval-slash",
    "block-cluster",
    "hybrid",
    "dynamic",
    "group-blocks",
    "safe",
    "balanced",
    "fast",
    "paper",
    "heads",
    BASELINE,
];

/// Begins an item that is a published selector.
const BASELINE: &str = "baseline";

/// Digits of a pattern file's hash in its name.
const HASH_DIGITS: usize = 8;

/// One attention of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedAttention {
    /// As written; of a pattern file also the start of its SHA-256, so that a run does not go on with
    /// another content.
    pub name: String,
    /// The settings that the name stands for.
    pub settings: AttentionSettings,
}

/// A list of attentions that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AttentionSpecError {
    /// No such attention.
    #[error("attention `{got}` is not known; one of {}", ATTENTIONS.join(", "))]
    Unknown {
        /// The item.
        got: String,
    },
    /// A parameter that the attention does not have, or a value that cannot be read or is out of range.
    #[error("attention `{got}`: {reason}")]
    Value {
        /// The item.
        got: String,
        /// Why.
        reason: String,
    },
    /// The same text twice: its rows could not be told apart.
    #[error("attention `{got}` is given twice")]
    Twice {
        /// The item.
        got: String,
    },
}

/// Every published selector that can follow `baseline:`, with its parameters as their authors publish them:
/// `a-shape:sink=128:window=3968`.
pub fn baselines() -> Vec<String> {
    Baseline::all().map(|baseline| baseline.to_string()).into()
}

/// Reads `dense,triangular:window=512,balanced:recall=0.97,baseline:xattention,...`.
///
/// # Errors
/// The first item that means nothing, or stands twice; a pattern file that cannot be read.
pub fn parse_attentions(text: &str) -> Result<Vec<NamedAttention>, AttentionSpecError> {
    let mut list: Vec<NamedAttention> = Vec::new();
    for item in text.split(',').map(str::trim) {
        let named = parse(item)?;
        if list.iter().any(|other| other.name == named.name) {
            return Err(AttentionSpecError::Twice { got: item.into() });
        }
        list.push(named);
    }
    Ok(list)
}

/// The settings of a name without parameters; `None` for an unknown name, and for `heads` and `baseline`,
/// which need more.
fn named(name: &str) -> Option<AttentionSettings> {
    let sparse = |settings| AttentionSettings {
        mode: AttentionMode::Sparse,
        ..settings
    };
    match name {
        "dense" => return Some(AttentionSettings::dense()),
        "auto" => return Some(AttentionSettings::default()),
        "sparse" => return Some(sparse(AttentionSettings::default())),
        _ => {}
    }
    let patterns = Pattern::named();
    if let Some(pattern) = patterns.iter().find(|pattern| pattern.name() == name) {
        return Some(AttentionSettings::sparse(*pattern));
    }
    match name.parse::<Preset>().ok()? {
        Preset::Exact => Some(AttentionSettings::dense()),
        preset => Some(sparse(preset.settings())),
    }
}

fn parse(item: &str) -> Result<NamedAttention, AttentionSpecError> {
    let mut parts = item.split(':').peekable();
    let name = parts.next().unwrap_or_default();
    let value = |reason: String| AttentionSpecError::Value {
        got: item.into(),
        reason,
    };
    if name == BASELINE {
        let text = item
            .strip_prefix(BASELINE)
            .and_then(|rest| rest.strip_prefix(':'));
        // Without a name the error lists those there are.
        let baseline = Baseline::parse(text.unwrap_or_default());
        let baseline = baseline.map_err(|error| value(error.to_string()))?;
        return Ok(NamedAttention {
            name: item.to_owned(),
            settings: AttentionSettings::selected_by(baseline),
        });
    }
    let mut shown = item.to_owned();
    let mut settings = match named(name) {
        Some(settings) => settings,
        None if name == "heads" => {
            let file = parts.next().and_then(|part| part.strip_prefix("file="));
            let path = file.ok_or_else(|| {
                value("begin with the file: heads:file=FILE.json[:recall=X]...".into())
            })?;
            let (heads, hash) = read_hashed(Path::new(path)).map_err(value)?;
            shown = format!("{item}#{hash}");
            AttentionSettings {
                mode: AttentionMode::Sparse,
                heads: Some(heads),
                ..AttentionSettings::default()
            }
        }
        None => return Err(AttentionSpecError::Unknown { got: item.into() }),
    };
    for part in parts {
        // `auto` is what a run does by default, which has no parameters of its own.
        if name == "auto" {
            return Err(value(format!("`{part}`: it takes no parameters")));
        }
        settings
            .set_part(part)
            .map_err(|error: ParseError| value(error.to_string()))?;
    }
    let checked = settings.pattern.validate();
    let checked = checked.and_then(|()| settings.selection.validate());
    checked.map_err(|error| value(error.to_string()))?;
    Ok(NamedAttention {
        name: shown,
        settings,
    })
}

/// The patterns of a file, and the first digits of its hash.
fn read_hashed(path: &Path) -> Result<(HeadPatterns, String), String> {
    let heads = read_heads(path).map_err(|error| error.to_string())?;
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let digest = Sha256::digest(text.as_bytes());
    let mut hash: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    hash.truncate(HASH_DIGITS);
    Ok((heads, hash))
}

#[cfg(test)]
#[path = "named_tests.rs"]
mod tests;
