//! Pattern files: a pattern for every head of every layer, in our form or in MInference's.
//!
//! Ours is what `search` writes, see [`HeadPatterns`]. MInference (arXiv 2407.02490) publishes for its
//! models a list of layers, each an object from query head to `[name, v, s, score]`:
//!
//! | name | becomes |
//! | --- | --- |
//! | `vertical_and_slash` | Interval-Slash of `v` columns and `ceil(s / 16)` slashes of 16 offsets |
//! | `stream_llm` | Triangular of `v` sinks and a window of `s` |
//! | `block_sparse` | Block-Cluster with as many blocks as the recall floor needs |
//!
//! Its `block_sparse` keeps a fixed number of blocks of 64; ours are chosen by their mass.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::Value;
use sparse_accelerate::{
    AttentionError, BlockCluster, HeadPatterns, IntervalSlash, Pattern, Triangular, index,
};
use thiserror::Error;

/// A pattern file that cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HeadsError {
    /// The file cannot be read.
    #[error("{}: cannot be read ({source}); give a JSON file that `search` wrote, or one of MInference", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// It is neither form.
    #[error(
        "{}: {reason}; a pattern file is a list of layers, each a list of patterns by head, \
         [[{{\"kind\": \"triangular\", \"sink\": 128}}, ...], ...], or MInference's list of \
         {{\"0\": [\"vertical_and_slash\", 1000, 6096, 1], ...}}",
        path.display()
    )]
    Form {
        /// The file.
        path: PathBuf,
        /// The fault and its place.
        reason: String,
    },
    /// A pattern that is out of range, or has no place in a list.
    #[error("{}: {source}", path.display())]
    Pattern {
        /// The file.
        path: PathBuf,
        /// Which, and its range.
        source: AttentionError,
    },
}

/// Reads a pattern file of either form and checks every pattern.
///
/// # Errors
/// A file that cannot be read, is neither form, or holds a pattern out of range.
pub fn read_heads(path: &Path) -> Result<HeadPatterns, HeadsError> {
    let text = std::fs::read_to_string(path).map_err(|source| HeadsError::Read {
        path: path.into(),
        source,
    })?;
    let heads = parse(&text).map_err(|reason| HeadsError::Form {
        path: path.into(),
        reason,
    })?;
    heads.validate().map_err(|source| HeadsError::Pattern {
        path: path.into(),
        source,
    })?;
    Ok(heads)
}

fn parse(text: &str) -> Result<HeadPatterns, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let Value::Array(layers) = &value else {
        return Err("is no list of layers".into());
    };
    if layers.is_empty() {
        return Err("lists no layers".into());
    }
    let layers = layers.iter().enumerate();
    let layers = layers.map(|(layer, row)| match row {
        Value::Array(heads) => heads
            .iter()
            .enumerate()
            .map(|(head, pattern)| {
                serde_json::from_value(pattern.clone())
                    .map_err(|error| format!("layer {layer}, head {head}: {error}"))
            })
            .collect(),
        Value::Object(heads) => {
            minference(heads.iter()).map_err(|reason| format!("layer {layer}{reason}"))
        }
        _ => Err(format!(
            "layer {layer} is neither a list of patterns nor an object"
        )),
    });
    let layers: Vec<Vec<Pattern>> = layers.collect::<Result<_, String>>()?;
    match layers.iter().position(Vec::is_empty) {
        Some(layer) => Err(format!("layer {layer} lists no heads")),
        None => Ok(layers.into()),
    }
}

/// One layer of MInference's form: every query head once.
fn minference<'a>(
    entries: impl Iterator<Item = (&'a String, &'a Value)>,
) -> Result<Vec<Pattern>, String> {
    let mut heads = BTreeMap::new();
    for (key, entry) in entries {
        let head: usize = key
            .parse()
            .map_err(|_| format!(": `{key}` is no query head"))?;
        let pattern = imported(entry).map_err(|reason| format!(", head {head}: {reason}"))?;
        heads.insert(head, pattern);
    }
    match (0..heads.len()).find(|head| !heads.contains_key(head)) {
        Some(missing) => Err(format!(" has {} heads, but none is {missing}", heads.len())),
        None => Ok(heads.into_values().collect()),
    }
}

/// `[name, v, s, score]`; the score is not needed.
fn imported(entry: &Value) -> Result<Pattern, String> {
    let part = |at: usize| entry.get(at);
    let Some(name) = part(0).and_then(Value::as_str) else {
        return Err(format!("{entry} does not begin with a pattern's name"));
    };
    let number = |at: usize| {
        let number = part(at).and_then(Value::as_u64);
        number
            .map(|n| n as usize)
            .ok_or_else(|| format!("{entry} has no whole number at place {at}"))
    };
    Ok(match name {
        "vertical_and_slash" => Pattern::IntervalSlash(IntervalSlash {
            columns: number(1)?,
            slashes: number(2)?.div_ceil(index::RANGE_ALIGN),
        }),
        "stream_llm" => Pattern::Triangular(Triangular {
            sink: number(1)?,
            window: number(2)?,
            ..Triangular::default()
        }),
        "block_sparse" => Pattern::BlockCluster(BlockCluster::default()),
        _ => {
            return Err(format!(
                "`{name}` is not vertical_and_slash, stream_llm or block_sparse"
            ));
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn our_form_is_read() {
        let heads = parse(r#"[[{"kind": "dense"}, {"kind": "hybrid"}], [{"kind": "triangular", "sink": 1}, {"kind": "dense"}]]"#).unwrap();
        assert_eq!(heads.layers().len(), 2);
        assert_eq!(heads.layers()[0][0], Pattern::Dense);
        let sink = Triangular {
            sink: 1,
            ..Triangular::default()
        };
        assert_eq!(heads.layers()[1][0], Pattern::Triangular(sink));
    }

    #[test]
    fn minference_is_mapped_by_query_head() {
        // Heads in any order; slashes in single offsets become slashes of sixteen, rounded up.
        let text = r#"[{"10": ["block_sparse", 100, null, 1.0], "0": ["vertical_and_slash", 1000, 6096, 336892.1],
            "1": ["stream_llm", 128, 4096, 0.9], "2": ["vertical_and_slash", 30, 17], "3": ["stream_llm", 0, 1, 1],
            "4": ["stream_llm", 1, 1], "5": ["stream_llm", 1, 1], "6": ["stream_llm", 1, 1],
            "7": ["stream_llm", 1, 1], "8": ["stream_llm", 1, 1], "9": ["stream_llm", 1, 1]}]"#;
        let heads = parse(text).unwrap();
        let row = &heads.layers()[0];
        assert_eq!(row.len(), 11);
        let lists = |columns, slashes| Pattern::IntervalSlash(IntervalSlash { columns, slashes });
        assert_eq!(row[0], lists(1000, 381));
        assert_eq!(row[2], lists(30, 2));
        let Pattern::Triangular(stream) = row[1] else {
            panic!("{:?}", row[1]);
        };
        assert_eq!((stream.sink, stream.window), (128, 4096));
        assert_eq!(row[10], Pattern::BlockCluster(BlockCluster::default()));
    }

    #[test]
    fn what_is_neither_form_is_named_with_its_place() {
        for (text, words) in [
            ("{", "EOF"),
            ("{}", "no list of layers"),
            ("[]", "no layers"),
            ("[[]]", "layer 0 lists no heads"),
            ("[{}]", "layer 0 lists no heads"),
            ("[3]", "layer 0 is neither"),
            (
                r#"[[{"kind": "dense"}], [{"kind": "star"}]]"#,
                "layer 1, head 0",
            ),
            (r#"[{"x": ["stream_llm", 1, 1]}]"#, "`x` is no query head"),
            (
                r#"[{"0": ["stream_llm", 1, 1], "2": ["stream_llm", 1, 1]}]"#,
                "none is 1",
            ),
            (r#"[{"0": ["stream_llm", 1]}]"#, "place 2"),
            (r#"[{"0": ["topk", 1, 2]}]"#, "`topk`"),
            (r#"[{"0": 3}]"#, "pattern's name"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_is_named_in_every_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heads.json");
        let error = || read_heads(&path).unwrap_err().to_string();
        assert!(
            error().contains("heads.json: cannot be read"),
            "{}",
            error()
        );
        std::fs::write(&path, "[[1]]").unwrap();
        assert!(error().contains("layer 0, head 0"), "{}", error());
        std::fs::write(&path, r#"[[{"kind": "triangular", "window": 0}]]"#).unwrap();
        assert!(
            error().contains("window") && error().contains("heads.json"),
            "{}",
            error()
        );
        let blocks =
            r#"[[{"kind": "fixed-blocks", "heads": 1, "block": 64, "density": 1, "seed": 0}]]"#;
        std::fs::write(&path, blocks).unwrap();
        assert!(error().contains("fixed-blocks"), "{}", error());
    }
}
