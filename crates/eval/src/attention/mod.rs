//! `--attention A[,B...]`: names of attention settings that a run compares.
//!
//! A name, and parameters after colons: `triangular:sink=64:window=512`, `balanced:recall=0.97`. The
//! text itself names the rows of a run, so it may stand only once. Everything but `auto` is sparse (or
//! dense) whatever the length of the prompt: a comparison at 2K tokens that is dense in secret compares
//! nothing.

mod parameters;

use std::path::Path;

use sparse_accelerate::{
    AttentionMode, AttentionSettings, BlockCluster, Dynamic, HeadPatterns, IntervalSlash, Pattern,
    Preset, Triangular,
};
use thiserror::Error;

use crate::{hash::text_hash, heads::read_heads};
use parameters::Parameter;

/// Every name that [`parse_attentions`] knows.
pub const ATTENTIONS: [&str; 14] = [
    "dense",
    "exact",
    "auto",
    "sparse",
    "triangular",
    "interval-slash",
    "block-cluster",
    "hybrid",
    "dynamic",
    "safe",
    "balanced",
    "fast",
    "paper",
    "heads",
];

/// Digits of a pattern file's hash in its name.
const HASH_DIGITS: usize = 8;

/// One attention of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedAttention {
    /// As written; of a pattern file also the start of its SHA-256, so that a run does not go on with
    /// another content.
    pub name: String,
    /// What it means.
    pub settings: AttentionSettings,
}

/// A list of attentions that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AttentionSpecError {
    /// No such attention.
    #[error("attention `{got}` is not known; one of {}", ATTENTIONS.join(", "))]
    Unknown {
        /// The item.
        got: String,
    },
    /// A parameter that the attention does not have, or whose value cannot be read.
    #[error("attention `{got}`: `{part}` is not {known}")]
    Parameter {
        /// The item.
        got: String,
        /// The part that is wrong.
        part: String,
        /// What may stand there.
        known: String,
    },
    /// Values the attention refuses.
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

/// Reads `dense,triangular:window=512,balanced:recall=0.97,...`.
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

/// The pattern of a name, with its default parameters: `triangular`, `interval-slash`, `block-cluster`,
/// `hybrid` or `dynamic`.
pub fn pattern_named(name: &str) -> Option<Pattern> {
    Some(match name {
        "triangular" => Pattern::Triangular(Triangular::default()),
        "interval-slash" => Pattern::IntervalSlash(IntervalSlash::default()),
        "block-cluster" => Pattern::BlockCluster(BlockCluster::default()),
        "hybrid" => Pattern::Hybrid(Dynamic::default()),
        "dynamic" => Pattern::Dynamic(Dynamic::default()),
        _ => return None,
    })
}

/// The settings of a name without parameters; `None` for what is no name, and for `heads`, which needs
/// its file.
fn named(name: &str) -> Option<AttentionSettings> {
    let sparse = |settings| AttentionSettings {
        mode: AttentionMode::Sparse,
        ..settings
    };
    if let Some(pattern) = pattern_named(name) {
        return Some(AttentionSettings::sparse(pattern));
    }
    match name {
        "dense" => Some(AttentionSettings::dense()),
        "auto" => Some(AttentionSettings::default()),
        "sparse" => Some(sparse(AttentionSettings::default())),
        _ => match name.parse::<Preset>().ok()? {
            Preset::Exact => Some(AttentionSettings::dense()),
            preset => Some(sparse(preset.settings())),
        },
    }
}

fn parse(item: &str) -> Result<NamedAttention, AttentionSpecError> {
    let mut parts = item.split(':').peekable();
    let name = parts.next().unwrap_or_default();
    let value = |reason: String| AttentionSpecError::Value {
        got: item.into(),
        reason,
    };
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
    // What the length decides has no parameters of its own.
    let allowed = match name {
        "auto" => Vec::new(),
        _ => Parameter::of(&settings),
    };
    for part in parts {
        parameters::set(&mut settings, &allowed, part).ok_or_else(|| {
            AttentionSpecError::Parameter {
                got: item.into(),
                part: part.into(),
                known: parameters::list(&allowed),
            }
        })?;
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
    let mut hash = text_hash(&text);
    hash.truncate(HASH_DIGITS);
    Ok((heads, hash))
}

#[cfg(test)]
mod tests;
