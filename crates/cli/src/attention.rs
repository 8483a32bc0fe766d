//! How attention over the prompt is asked for: a mode, a preset or a pattern, and what overrides it.
//!
//! Names, parameters and pattern files are read by the libraries; this file maps flags to them and says
//! which flags contradict each other. A parameter that stands in a file is not given beside it.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use sparse_accelerate::{
    AttentionMode, AttentionSettings, ParseError, Pattern, Preset, Selection, Triangular,
};
use sparse_accelerate_engine::attention::{read_heads, read_pattern};

use crate::exit::usage;

/// The meaning of the attention flags, for the end of a command's help.
pub(crate) fn help() -> String {
    let error = |preset: Preset| format!("{:.2}", preset.settings().selection.error);
    let [safe, balanced, fast] = [Preset::Safe, Preset::Balanced, Preset::Fast].map(error);
    format!(
        "\
Attention over the prompt:
  --preset is the short way: exact computes every key; safe, balanced and fast let every query head choose
  blocks of keys that keep its output within {safe}, {balanced} or {fast} of dense attention's (measured on a few rows, over
  the mean head of the layer; heads that would be off by more keep more, or all); paper is SparseAccelerate's choice of three patterns, head by head.
  --pattern names one pattern instead. triangular sees the first --sink tokens and the latest --window
  ones, and the last --last tokens of the prompt see everything, so that a question at the end is
  answered from the whole text. interval-slash adds columns and diagonals, block-cluster blocks, hybrid
  both; dynamic lets every head choose among them. group-blocks is that of the presets. Their budgets are set after colons,
  interval-slash:columns=2048:slashes=256, or in a file:
    kind = \"interval-slash\"
    columns = 2048
    slashes = 256
  --heads-file gives every head its own, as `search` finds them.
  --recall and --granularity refine the patterns that choose from the input, --error that of the presets,
  --correction those that find columns, diagonals or clusters."
    )
}

/// How attention over the prompt is computed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Attention over the prompt")]
pub(crate) struct AttentionArgs {
    #[arg(long, value_name = "MODE", default_value = "auto", help = mode_help())]
    attention: Mode,

    /// exact, safe, balanced, fast or paper: from all keys to the fewest
    #[arg(long, value_name = "NAME", conflicts_with_all = ["pattern", "heads_file"])]
    preset: Option<String>,

    #[arg(long, value_name = "PATTERN", conflicts_with = "heads_file", help = pattern_help())]
    pattern: Option<String>,

    /// A pattern for every head: JSON that `search` wrote, or of MInference
    #[arg(long, value_name = "FILE")]
    heads_file: Option<PathBuf>,

    #[arg(long, value_name = "X", help = recall_help())]
    recall: Option<String>,

    #[arg(long, value_name = "X", help = error_help())]
    error: Option<String>,

    #[arg(long, value_name = "HOW", help = correction_help())]
    correction: Option<String>,

    #[arg(long, value_name = "WHICH", help = granularity_help())]
    granularity: Option<String>,

    #[command(flatten)]
    seen: SeenArgs,
}

/// The keys that every row sees, and the rows that see every key; all optional.
#[derive(Debug, Clone, Default, Args)]
struct SeenArgs {
    #[arg(
        long,
        value_name = "N",
        help = seen_help("Tokens at the start of the prompt that every token sees", "sink")
    )]
    sink: Option<String>,

    #[arg(
        long,
        value_name = "N",
        help = seen_help("Latest tokens that every token sees, itself included", "window")
    )]
    window: Option<String>,

    #[arg(
        long,
        value_name = "N",
        help = seen_help("Tokens at the end of the prompt that see everything", "last")
    )]
    last: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Auto,
    Dense,
    Sparse,
}

fn mode_help() -> String {
    let from = AttentionSettings::default().min_sparse_len;
    format!(
        "auto is sparse for long prompts ({from} tokens or more, or the length that `calibrate` found); dense \
         and sparse hold for every length"
    )
}

fn pattern_help() -> String {
    let default = AttentionSettings::default().pattern.name();
    let names: Vec<&str> = Pattern::named().iter().map(Pattern::name).collect();
    let names = names.join(", ");
    format!(
        "{names}, with parameters after colons, or a TOML or JSON file with a pattern [default: {default}]"
    )
}

fn recall_help() -> String {
    let default = Selection::default().recall;
    format!(
        "Least share of a head's attention mass to keep, 0 to 1; 0 takes patterns as they are. With group-blocks what \
         a choice begins with, before its error is measured [default: the preset's, else {default}]"
    )
}

fn error_help() -> String {
    let default = Selection::default().error;
    format!(
        "Largest error of a head's output on measured rows, over that of the layer's mean head; with group-blocks \
         [default: the preset's, else {default}]"
    )
}

fn correction_help() -> String {
    format!(
        "Replacement of the keys that are left out: none, their mean, or their mean and variance \
         (gaussian) [default: the preset's, else {}]",
        word(&Selection::default().correction)
    )
}

fn granularity_help() -> String {
    format!(
        "Heads that one choice of keys is for: {} [default: {}]",
        form("granularity").replace('|', " or "),
        word(&Selection::default().granularity)
    )
}

/// `what [default: N with triangular, else M]`; once where both are the same.
fn seen_help(what: &str, field: &str) -> String {
    let value = |settings| match serde_json::to_value(settings) {
        Ok(serde_json::Value::Object(fields)) => fields.get(field).map(ToString::to_string),
        _ => None,
    };
    let triangular = serde_json::to_value(Triangular::default()).map_or(None, value);
    let selection = serde_json::to_value(Selection::default()).map_or(None, value);
    match (triangular, selection) {
        (Some(one), Some(other)) if one == other => format!("{what} [default: {one}]"),
        (Some(one), Some(other)) => {
            format!("{what} [default: {one} with triangular, else {other}]")
        }
        _ => what.to_owned(),
    }
}

/// The values that a parameter of a selection may have.
pub(crate) fn form(name: &str) -> &'static str {
    let all = Selection::PARAMETERS;
    let found = all.iter().find(|parameter| parameter.name == name);
    found.map_or("", |parameter| parameter.form)
}

/// A setting as text has it.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

impl AttentionArgs {
    /// The settings, checked.
    pub(crate) fn settings(&self) -> Result<AttentionSettings> {
        let mut settings = self.base()?;
        if settings.mode == AttentionMode::Dense {
            self.refuse_beside_exact()?;
        }
        self.refine(&mut settings)?;
        match self.attention {
            Mode::Auto => {}
            Mode::Dense => settings.mode = AttentionMode::Dense,
            Mode::Sparse => settings.mode = AttentionMode::Sparse,
        }
        settings.pattern.validate()?;
        settings.selection.validate()?;
        Ok(settings)
    }

    /// The settings of a name or a file.
    fn base(&self) -> Result<AttentionSettings> {
        let default = AttentionSettings::default();
        if let Some(name) = &self.preset {
            let preset: Preset = name
                .parse()
                .map_err(|error| usage(format!("--preset: {error}")))?;
            return Ok(preset.settings());
        }
        if let Some(path) = &self.heads_file {
            let heads =
                read_heads(path).map_err(|error| usage(format!("--heads-file: {error}")))?;
            return Ok(AttentionSettings {
                heads: Some(heads),
                ..default
            });
        }
        let Some(text) = &self.pattern else {
            return Ok(default);
        };
        let pattern = read_pattern(text).map_err(|error| usage(format!("--pattern {error}")))?;
        let from_file = text.parse::<Pattern>().is_err();
        if from_file && !pattern.selects() && self.seen.any() {
            return Err(usage(
                "--sink, --window and --last belong to a pattern given by name; with a pattern file, write \
                 them in the file",
            ));
        }
        Ok(AttentionSettings { pattern, ..default })
    }

    /// Refuses flags that limit what tokens see beside the preset that limits nothing.
    fn refuse_beside_exact(&self) -> Result<()> {
        if self.attention == Mode::Sparse {
            return Err(usage(
                "--preset exact is dense, so --attention sparse contradicts it; leave one out, or take \
                 --preset safe",
            ));
        }
        if self.seen.any() {
            return Err(usage(
                "--sink, --window and --last limit what tokens see, and --preset exact limits nothing; \
                 take --preset safe, or leave them out",
            ));
        }
        match self
            .choices()
            .into_iter()
            .find(|(_, given)| given.is_some())
        {
            Some((name, _)) => Err(no_choice(name, "--preset exact")),
            None => Ok(()),
        }
    }

    /// Parameters of the heads that choose.
    fn choices(&self) -> [(&'static str, Option<&str>); 4] {
        [
            ("recall", self.recall.as_deref()),
            ("error", self.error.as_deref()),
            ("correction", self.correction.as_deref()),
            ("granularity", self.granularity.as_deref()),
        ]
    }

    /// Puts the flags that override over it.
    fn refine(&self, settings: &mut AttentionSettings) -> Result<()> {
        for (name, value) in self.choices().into_iter().chain(self.seen.all()) {
            let Some(value) = value else { continue };
            let is_choice = self.choices().iter().any(|(choice, _)| *choice == name);
            if is_choice && !settings.selects() {
                let pattern = format!("the pattern `{}`", settings.pattern.name());
                return Err(no_choice(name, &pattern));
            }
            set(settings, name, value)?;
        }
        Ok(())
    }
}

/// Sets the parameter of a flag.
pub(crate) fn set(settings: &mut AttentionSettings, name: &str, value: &str) -> Result<()> {
    settings.set(name, value).map_err(|error| match error {
        ParseError::Parameter { .. } => {
            let parameters = settings.parameters();
            let own = parameters.iter().find(|parameter| parameter.name == name);
            match own.map(|parameter| parameter.form) {
                Some("N") => usage(format!("--{name} {value}: is no number of tokens")),
                Some("X") => usage(format!("--{name} {value}: is no number")),
                Some(words) => usage(format!("--{name} {value}: is not one of {words}")),
                None => usage(format!(
                    "--{name}: the pattern `{}` has no such parameter; {} has",
                    settings.pattern.name(),
                    has(name)
                )),
            }
        }
        error => usage(format!("--{name} {value}: {error}")),
    })
}

/// A pattern that has a parameter.
fn has(name: &str) -> &'static str {
    let of_groups = &Selection::GROUP_PARAMETERS;
    match of_groups.iter().any(|parameter| parameter.name == name) {
        true => "--preset balanced",
        false => "--pattern dynamic",
    }
}

fn no_choice(name: &str, what: &str) -> anyhow::Error {
    usage(format!(
        "--{name} is for heads that choose their keys, and {what} leaves them no choice; add {}",
        has(name)
    ))
}

impl SeenArgs {
    fn all(&self) -> [(&'static str, Option<&str>); 3] {
        [
            ("sink", self.sink.as_deref()),
            ("window", self.window.as_deref()),
            ("last", self.last.as_deref()),
        ]
    }

    fn any(&self) -> bool {
        self.all().iter().any(|(_, given)| given.is_some())
    }
}

#[cfg(test)]
#[path = "attention_tests.rs"]
mod tests;
