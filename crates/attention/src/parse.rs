//! Patterns and settings from text: `triangular:sink=64:window=512`.
//!
//! A parameter is `name=value`; one function knows which parameters a pattern has and how their values
//! are written, and every way to give one goes through it.

use std::{fmt, str::FromStr};

use serde::de::{DeserializeOwned, value::StrDeserializer};
use thiserror::Error;

use crate::{
    error::AttentionError,
    pattern::{BlockCluster, Dynamic, IntervalSlash, Pattern, Triangular},
    select::Selection,
    settings::{AttentionMode, AttentionSettings},
};

/// A text that is no pattern, or no parameter of one.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The name is not known.
    #[error("`{got}` is not known; one of {}", known.join(", "))]
    Name {
        /// The name got.
        got: String,
        /// The names there are.
        known: Vec<&'static str>,
    },
    /// The parameter is not known here, or its value cannot be read.
    #[error("`{part}` is not {known}")]
    Parameter {
        /// The parameter as written.
        part: String,
        /// The parameters that are known here, each with the form of its value.
        known: String,
    },
    /// A value is out of range.
    #[error(transparent)]
    Value(#[from] AttentionError),
}

/// A parameter that text can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// The name, before `=`.
    pub name: &'static str,
    /// The form of the value: `N` a count, `X` a number, else the words there are, separated by `|`.
    pub form: &'static str,
}

const fn parameter(name: &'static str, form: &'static str) -> Parameter {
    Parameter { name, form }
}

const SINK: Parameter = parameter("sink", "N");
const WINDOW: Parameter = parameter("window", "N");
const LAST: Parameter = parameter("last", "N");
const COLUMNS: Parameter = parameter("columns", "N");
const SLASHES: Parameter = parameter("slashes", "N");
const ALPHA: Parameter = parameter("alpha", "X");

impl Pattern {
    /// Every pattern that has a short form, with its default parameters.
    pub fn named() -> [Self; 7] {
        [
            Self::Dense,
            Self::Triangular(Triangular::default()),
            Self::IntervalSlash(IntervalSlash::default()),
            Self::BlockCluster(BlockCluster::default()),
            Self::Hybrid(Dynamic::default()),
            Self::Dynamic(Dynamic::default()),
            Self::GroupBlocks,
        ]
    }

    /// The parameters that [`Pattern::set`] takes.
    pub fn parameters(&self) -> &'static [Parameter] {
        match self {
            Self::Dense | Self::GroupBlocks | Self::FixedBlocks(_) | Self::Index => &[],
            Self::Triangular(_) => &[SINK, WINDOW, LAST],
            Self::IntervalSlash(_) => &[COLUMNS, SLASHES],
            Self::BlockCluster(_) => &[ALPHA],
            Self::Hybrid(_) | Self::Dynamic(_) => &[COLUMNS, SLASHES, ALPHA],
        }
    }

    /// Sets one parameter from text. The range of the value is checked by [`Pattern::validate`].
    ///
    /// # Errors
    /// [`ParseError::Parameter`]: a name that the pattern does not have, or a value of another form.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ParseError> {
        let known = self.parameters();
        self.try_set(name, value)
            .ok_or_else(|| refused(name, value, known))
    }

    fn try_set(&mut self, name: &str, value: &str) -> Option<()> {
        match (self, name) {
            (Self::Triangular(t), "sink") => t.sink = value.parse().ok()?,
            (Self::Triangular(t), "window") => t.window = value.parse().ok()?,
            (Self::Triangular(t), "last") => t.last = value.parse().ok()?,
            (Self::IntervalSlash(lists), _) => lists.try_set(name, value)?,
            (Self::BlockCluster(blocks), _) => blocks.try_set(name, value)?,
            (Self::Hybrid(both) | Self::Dynamic(both), "alpha") => {
                both.block_cluster.try_set(name, value)?;
            }
            (Self::Hybrid(both) | Self::Dynamic(both), _) => {
                both.interval_slash.try_set(name, value)?;
            }
            _ => return None,
        }
        Some(())
    }
}

impl IntervalSlash {
    fn try_set(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "columns" => self.columns = value.parse().ok()?,
            "slashes" => self.slashes = value.parse().ok()?,
            _ => return None,
        }
        Some(())
    }
}

impl BlockCluster {
    fn try_set(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "alpha" => self.alpha = value.parse().ok()?,
            _ => return None,
        }
        Some(())
    }
}

impl FromStr for Pattern {
    type Err = ParseError;

    /// Reads `name` or `name:parameter=value:parameter=value`; parameters left out have their defaults.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        let mut pattern = pattern_named(name)?;
        for part in parts {
            let (name, value) = split(part, pattern.parameters())?;
            pattern.set(name, value)?;
        }
        pattern.validate()?;
        Ok(pattern)
    }
}

/// The short form that [`Pattern::from_str`] reads: the name, then every parameter that has not its default.
/// Fixed blocks and an index have none; they are their names.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        let count = |f: &mut fmt::Formatter<'_>, name: Parameter, value: usize, default: usize| {
            if value == default {
                return Ok(());
            }
            write!(f, ":{}={value}", name.name)
        };
        match self {
            Self::Triangular(t) => {
                let default = Triangular::default();
                count(f, SINK, t.sink, default.sink)?;
                count(f, WINDOW, t.window, default.window)?;
                count(f, LAST, t.last, default.last)?;
            }
            Self::IntervalSlash(lists)
            | Self::Hybrid(Dynamic {
                interval_slash: lists,
                ..
            })
            | Self::Dynamic(Dynamic {
                interval_slash: lists,
                ..
            }) => {
                let default = IntervalSlash::default();
                count(f, COLUMNS, lists.columns, default.columns)?;
                count(f, SLASHES, lists.slashes, default.slashes)?;
            }
            _ => {}
        }
        match self {
            Self::BlockCluster(blocks)
            | Self::Hybrid(Dynamic {
                block_cluster: blocks,
                ..
            })
            | Self::Dynamic(Dynamic {
                block_cluster: blocks,
                ..
            }) if *blocks != BlockCluster::default() => {
                write!(f, ":{}={}", ALPHA.name, blocks.alpha)
            }
            _ => Ok(()),
        }
    }
}

fn pattern_named(name: &str) -> Result<Pattern, ParseError> {
    let named = Pattern::named();
    let found = named.iter().find(|pattern| pattern.name() == name);
    found.copied().ok_or_else(|| ParseError::Name {
        got: name.into(),
        known: named.iter().map(Pattern::name).collect(),
    })
}

impl Selection {
    /// The parameters that [`AttentionSettings::set`] takes where heads choose their keys.
    pub const PARAMETERS: [Parameter; 9] = [
        parameter("recall", "X"),
        SINK,
        WINDOW,
        LAST,
        parameter("correction", "none|mean|gaussian"),
        parameter("granularity", "per-kv-head|per-query-head"),
        parameter("dense_layers", "N"),
        parameter("column_share", "X"),
        parameter("slash_share", "X"),
    ];

    /// Those of them that mean something where blocks are chosen by their mass.
    pub const GROUP_PARAMETERS: [Parameter; 7] = [
        parameter("recall", "X"),
        parameter("error", "X"),
        SINK,
        WINDOW,
        LAST,
        parameter("granularity", "per-kv-head|per-query-head"),
        parameter("dense_layers", "N"),
    ];

    fn try_set(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "recall" => self.recall = value.parse().ok()?,
            "error" => self.error = value.parse().ok()?,
            "sink" => self.sink = value.parse().ok()?,
            "window" => self.window = value.parse().ok()?,
            "last" => self.last = value.parse().ok()?,
            "correction" => self.correction = word(value)?,
            "granularity" => self.granularity = word(value)?,
            "dense_layers" => self.dense_layers = value.parse().ok()?,
            "column_share" => self.column_share = value.parse().ok()?,
            "slash_share" => self.slash_share = value.parse().ok()?,
            _ => return None,
        }
        Some(())
    }
}

impl AttentionSettings {
    /// The parameters that [`AttentionSettings::set`] takes: of the selection where heads choose their
    /// keys, and of the pattern; none where attention is dense, or a selector chooses.
    pub fn parameters(&self) -> Vec<Parameter> {
        if self.mode == AttentionMode::Dense || self.selector.is_some() {
            return Vec::new();
        }
        if self.heads.is_some() {
            return Selection::PARAMETERS.to_vec();
        }
        let own = self.pattern.parameters();
        if self.pattern == Pattern::GroupBlocks {
            return Selection::GROUP_PARAMETERS.to_vec();
        }
        match self.pattern.selects() {
            true => [&Selection::PARAMETERS, own].concat(),
            false => own.to_vec(),
        }
    }

    /// Sets one parameter from text, of the pattern or of the selection. Ranges are checked by
    /// [`Pattern::validate`] and [`Selection::validate`].
    ///
    /// # Errors
    /// [`ParseError::Parameter`]: a name that is not in [`AttentionSettings::parameters`], or a value of
    /// another form.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ParseError> {
        let known = self.parameters();
        let done = match known.iter().any(|parameter| parameter.name == name) {
            false => None,
            true if self.selects() => {
                let selection = self.selection.try_set(name, value);
                selection.or_else(|| self.pattern.try_set(name, value))
            }
            true => self.pattern.try_set(name, value),
        };
        done.ok_or_else(|| refused(name, value, &known))
    }

    /// Sets one parameter from `name=value`, as [`AttentionSettings::set`].
    ///
    /// # Errors
    /// As [`AttentionSettings::set`], or no `=`.
    pub fn set_part(&mut self, part: &str) -> Result<(), ParseError> {
        let (name, value) = split(part, &self.parameters())?;
        self.set(name, value)
    }
}

/// Splits `name=value`; `known` are the parameters that could stand there.
fn split<'a>(part: &'a str, known: &[Parameter]) -> Result<(&'a str, &'a str), ParseError> {
    part.split_once('=').ok_or_else(|| ParseError::Parameter {
        part: part.into(),
        known: list(known),
    })
}

fn refused(name: &str, value: &str, known: &[Parameter]) -> ParseError {
    ParseError::Parameter {
        part: format!("{name}={value}"),
        known: list(known),
    }
}

/// `sink=N, window=N or last=N`.
fn list(known: &[Parameter]) -> String {
    let form = |parameter: &Parameter| format!("{}={}", parameter.name, parameter.form);
    let forms: Vec<String> = known.iter().map(form).collect();
    match forms.split_last() {
        None => "possible here: it takes no parameters".into(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

/// A word as a settings file has it.
fn word<T: DeserializeOwned>(text: &str) -> Option<T> {
    T::deserialize(StrDeserializer::<serde::de::value::Error>::new(text)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_take_what_they_read() {
        let mut settings = AttentionSettings::sparse(Pattern::GroupBlocks);
        assert_eq!(settings.set("recall", "0.8"), Ok(()));
        assert_eq!(settings.selection.recall, 0.8);
        assert_eq!(settings.set("error", "0.15"), Ok(()));
        assert_eq!(settings.selection.error, 0.15);
        assert_eq!(settings.set("granularity", "per-kv-head"), Ok(()));
        assert_eq!(settings.choices(8, 2), 2);
        assert!(settings.set("correction", "mean").is_err());
    }

    #[test]
    fn a_pattern_is_its_name_and_what_differs_from_its_defaults() {
        for pattern in Pattern::named() {
            assert_eq!(pattern.name().parse(), Ok(pattern));
        }
        let triangular = Triangular {
            sink: 64,
            window: 512,
            ..Triangular::default()
        };
        let parsed = "triangular:sink=64:window=512".parse();
        assert_eq!(parsed, Ok(Pattern::Triangular(triangular)));
        let Ok(Pattern::Dynamic(both)) = "dynamic:columns=4:slashes=5:alpha=0.25".parse() else {
            panic!("not dynamic");
        };
        let lists = both.interval_slash;
        assert_eq!((lists.columns, lists.slashes), (4, 5));
        assert_eq!(both.block_cluster.alpha, 0.25);
        for text in [
            "dense",
            "triangular",
            "triangular:window=512",
            "triangular:sink=0:window=1:last=2",
            "interval-slash:slashes=7",
            "block-cluster:alpha=0.125",
            "hybrid:columns=4:alpha=0.5",
            "dynamic:columns=4:slashes=5:alpha=0.25",
        ] {
            let pattern: Pattern = text.parse().expect(text);
            assert_eq!(pattern.to_string(), text);
        }
    }

    #[test]
    fn every_parameter_takes_every_word_of_its_form() {
        for pattern in Pattern::named() {
            let mut settings = AttentionSettings::sparse(pattern);
            for Parameter { name, form } in settings.parameters() {
                let words = match form {
                    "N" => vec!["3"],
                    "X" => vec!["0.5"],
                    words => words.split('|').collect(),
                };
                for word in words {
                    assert_eq!(settings.set(name, word), Ok(()), "{name}={word}");
                }
                assert!(settings.set(name, "?").is_err(), "{name}");
            }
            let unchanged = settings == AttentionSettings::sparse(pattern);
            assert_eq!(unchanged, pattern == Pattern::Dense);
        }
    }

    #[test]
    fn sinks_belong_to_what_reads_them() {
        let mut triangular = AttentionSettings::sparse(Pattern::Triangular(Triangular::default()));
        triangular.set("sink", "3").expect("a sink");
        assert_eq!(triangular.selection, Selection::default());
        let mut hybrid = AttentionSettings::sparse(Pattern::Hybrid(Dynamic::default()));
        hybrid.set("sink", "3").expect("a sink");
        assert_eq!(hybrid.selection.sink, 3);
        assert_eq!(hybrid.pattern, Pattern::Hybrid(Dynamic::default()));
    }

    #[test]
    fn the_parameters_that_could_stand_there_are_listed() {
        let message = |text: &str| text.parse::<Pattern>().expect_err(text).to_string();
        assert!(message("star").contains("dense, triangular, interval-slash"));
        assert_eq!(
            message("triangular:recall=1"),
            "`recall=1` is not sink=N, window=N or last=N"
        );
        assert!(message("triangular:sink").contains("`sink` is not sink=N"));
        assert!(message("dense:sink=1").contains("takes no parameters"));
        assert!(message("triangular:window=0").contains("window"));
        let dense = AttentionSettings::dense().set("recall", "1");
        assert!(dense.is_err());
    }
}
