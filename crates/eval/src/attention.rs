//! `--attention A[,B...]`: names of attention settings that a run compares.
//!
//! `dense`, `auto`, or `triangular` with parameters after colons: `triangular:sink=64:window=512`.
//! `sparse` is the default pattern, which is `triangular`. The text itself names the rows of a run, so
//! it may stand only once.

use sparse_accelerate::{AttentionSettings, Pattern, Triangular};
use thiserror::Error;

/// One attention of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedAttention {
    /// As written.
    pub name: String,
    /// What it means.
    pub settings: AttentionSettings,
}

/// A list of attentions that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AttentionSpecError {
    /// No such attention.
    #[error(
        "attention `{got}` is not known; one of dense, auto, sparse, triangular[:sink=N][:window=N][:last=N]"
    )]
    Unknown {
        /// The item.
        got: String,
    },
    /// A parameter that the pattern does not have, or that is no number.
    #[error("attention `{got}`: `{part}` is not sink=N, window=N or last=N")]
    Parameter {
        /// The item.
        got: String,
        /// The part that is wrong.
        part: String,
    },
    /// Values the pattern refuses.
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

/// Reads `dense,triangular:window=512,...`.
///
/// # Errors
/// The first item that means nothing, or stands twice.
pub fn parse_attentions(text: &str) -> Result<Vec<NamedAttention>, AttentionSpecError> {
    let mut list: Vec<NamedAttention> = Vec::new();
    for item in text.split(',').map(str::trim) {
        if list.iter().any(|named| named.name == item) {
            return Err(AttentionSpecError::Twice { got: item.into() });
        }
        list.push(NamedAttention {
            name: item.into(),
            settings: parse(item)?,
        });
    }
    Ok(list)
}

fn parse(item: &str) -> Result<AttentionSettings, AttentionSpecError> {
    let mut parts = item.split(':');
    let pattern = parts.next().unwrap_or_default();
    let settings = match pattern {
        "dense" => AttentionSettings::dense(),
        "auto" => AttentionSettings::default(),
        "sparse" | "triangular" => {
            let mut pattern = Triangular::default();
            for part in parts.by_ref() {
                set(&mut pattern, part).ok_or_else(|| AttentionSpecError::Parameter {
                    got: item.into(),
                    part: part.into(),
                })?;
            }
            AttentionSettings::sparse(Pattern::Triangular(pattern))
        }
        _ => return Err(AttentionSpecError::Unknown { got: item.into() }),
    };
    if let Some(part) = parts.next() {
        return Err(AttentionSpecError::Parameter {
            got: item.into(),
            part: part.into(),
        });
    }
    settings
        .pattern
        .validate()
        .map_err(|error| AttentionSpecError::Value {
            got: item.into(),
            reason: error.to_string(),
        })?;
    Ok(settings)
}

fn set(pattern: &mut Triangular, part: &str) -> Option<()> {
    let (name, value) = part.split_once('=')?;
    let value = value.parse().ok()?;
    match name {
        "sink" => pattern.sink = value,
        "window" => pattern.window = value,
        "last" => pattern.last = value,
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_and_the_rest_is_default() {
        let list = parse_attentions("dense,triangular:sink=1:last=0").unwrap();
        assert_eq!(list[0].settings, AttentionSettings::dense());
        let expected = Triangular {
            sink: 1,
            last: 0,
            ..Triangular::default()
        };
        assert_eq!(
            list[1].settings,
            AttentionSettings::sparse(Pattern::Triangular(expected))
        );
        assert_eq!(list[1].name, "triangular:sink=1:last=0");
    }

    #[test]
    fn what_means_nothing_is_refused_with_its_text() {
        for (text, part) in [
            ("", "``"),
            ("flash", "`flash`"),
            ("dense:sink=1", "`sink=1`"),
            ("triangular:sink", "`sink`"),
            ("triangular:sink=-1", "`sink=-1`"),
            ("triangular:window=0", "window"),
            ("dense,dense", "twice"),
        ] {
            let error = parse_attentions(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
