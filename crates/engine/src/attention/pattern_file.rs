//! A pattern by its name, or from a file of TOML or JSON: `kind = "triangular"`, `sink = 64`.

use std::path::{Path, PathBuf};

use sparse_accelerate::{ParseError, Pattern};
use thiserror::Error;

/// A text that is neither a pattern nor a file with one.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PatternFileError {
    /// Parameters after a name, or the name of no pattern and no file.
    #[error("{got}: {source}; nor is it a file that can be read ({unread})")]
    Neither {
        /// The text.
        got: String,
        /// Why it is no pattern.
        source: ParseError,
        /// Why it is no file.
        unread: std::io::Error,
    },
    /// A file that holds no pattern.
    #[error(
        "{}: {reason}\nA pattern file looks like this:\n  kind = \"triangular\"\n  sink = 64\n  window = \
         1024\n  last = 128",
        path.display()
    )]
    Form {
        /// The file.
        path: PathBuf,
        /// The fault in it.
        reason: String,
    },
}

/// Reads a pattern from its short form (see `Pattern::from_str`), or from a file whose name ends in `.toml`
/// or `.json`. A file's ranges are left to [`Pattern::validate`].
///
/// # Errors
/// A text that is neither, or a file without a pattern.
pub fn read_pattern(text: &str) -> Result<Pattern, PatternFileError> {
    match text.parse() {
        Ok(pattern) => Ok(pattern),
        Err(source) => read_file(text, source),
    }
}

fn read_file(name: &str, source: ParseError) -> Result<Pattern, PatternFileError> {
    let path = Path::new(name);
    let text = std::fs::read_to_string(path).map_err(|unread| PatternFileError::Neither {
        got: name.into(),
        source,
        unread,
    })?;
    let parsed = match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => serde_json::from_str(&text).map_err(|error| error.to_string()),
        Some("toml") => toml::from_str(&text).map_err(|error| error.to_string()),
        _ => Err("the name must end in .toml or .json".to_string()),
    };
    parsed.map_err(|reason| PatternFileError::Form {
        path: path.into(),
        reason: reason.trim_end().into(),
    })
}
