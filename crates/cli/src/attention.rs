//! How attention over the prompt is asked for: a mode, a preset or a pattern, and what overrides it.
//!
//! A pattern file holds one pattern in TOML or JSON, for example `kind = "triangular"`, `sink = 64`,
//! `window = 1024`, `last = 128`; a heads file one for every head (see `search`). What stands in a file
//! is not given beside it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, ValueEnum};
use sparse_accelerate::{
    AttentionMode, AttentionSettings, Pattern, Preset,
    select::{Choosers, Correction},
};
use sparse_accelerate_eval::{pattern_named, read_heads};

use crate::exit::usage;

/// What the attention flags mean, for the end of a command's help.
pub(crate) const HELP: &str = "\
Attention over the prompt:
  --preset is the short way: exact computes every key; safe, balanced and fast let every head choose the
  cheapest pattern that keeps 0.98, 0.95 or 0.90 of its attention mass (measured; a head that would keep
  less is dense); paper is SparseAccelerate's choice of three patterns.
  --pattern names one pattern instead. triangular sees the first --sink tokens and the latest --window
  ones, and the last --last tokens of the prompt see everything, so that a question at the end is
  answered from the whole text. interval-slash adds columns and diagonals, block-cluster blocks, hybrid
  both; dynamic lets every head choose among them. Their budgets are set in a file:
    kind = \"interval-slash\"
    columns = 2048
    slashes = 256
  --heads-file gives every head its own, as `search` finds them.
  --recall, --correction and --choosers refine whatever chooses from the input.";

/// How attention over the prompt is computed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Attention over the prompt")]
pub(crate) struct AttentionArgs {
    /// auto is sparse for long prompts (65536 tokens or more, or what `calibrate` found); dense and sparse
    /// are what they say
    #[arg(long, value_name = "MODE", default_value = "auto")]
    attention: Mode,

    /// exact, safe, balanced, fast or paper: from all keys to the fewest
    #[arg(long, value_name = "NAME", conflicts_with_all = ["pattern", "heads_file"])]
    preset: Option<String>,

    /// triangular, interval-slash, block-cluster, hybrid, dynamic, or a TOML or JSON file with a pattern
    /// [default: the default settings']
    #[arg(long, value_name = "PATTERN", conflicts_with = "heads_file")]
    pattern: Option<String>,

    /// A pattern for every head: JSON that `search` wrote, or of MInference
    #[arg(long, value_name = "FILE")]
    heads_file: Option<PathBuf>,

    /// Least share of a head's attention mass to keep, 0 to 1; 0 takes patterns as they are
    /// [default: the preset's, else 0.95]
    #[arg(long, value_name = "X")]
    recall: Option<f32>,

    /// What stands in for keys that are left out: none, their mean, or their mean and variance
    /// [default: the preset's, else gaussian]
    #[arg(long, value_name = "HOW")]
    correction: Option<CorrectionArg>,

    /// Whether the query heads of a KV head share one choice [default: kv-heads]
    #[arg(long, value_name = "WHICH")]
    choosers: Option<ChoosersArg>,

    #[command(flatten)]
    seen: SeenArgs,
}

/// What every row sees, and who sees everything; all optional.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct SeenArgs {
    /// Tokens at the start of the prompt that every token sees [default: 256 with triangular, else 128]
    #[arg(long, value_name = "N")]
    sink: Option<usize>,

    /// Latest tokens that every token sees, itself included [default: 1024 with triangular, else 512]
    #[arg(long, value_name = "N")]
    window: Option<usize>,

    /// Tokens at the end of the prompt that see everything [default: 128]
    #[arg(long, value_name = "N")]
    last: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Auto,
    Dense,
    Sparse,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum CorrectionArg {
    /// Nothing: the softmax is renormalised over the kept keys
    None,
    /// The mean key of a block, weighted by its left-out keys
    Mean,
    /// The mean, and the variance to second order
    Gaussian,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ChoosersArg {
    /// One choice for the query heads of a KV head, judged by the worst of them
    KvHeads,
    /// Every query head on its own
    QueryHeads,
}

impl AttentionArgs {
    /// The settings, checked.
    pub(crate) fn settings(&self) -> Result<AttentionSettings> {
        let mut settings = self.base()?;
        match (self.attention, self.preset.as_deref()) {
            (Mode::Sparse, Some("exact")) => {
                return Err(usage(
                    "--preset exact is dense, so --attention sparse contradicts it; leave one out, or \
                     take --preset safe",
                ));
            }
            (Mode::Auto, _) => {}
            (Mode::Dense, _) => settings.mode = AttentionMode::Dense,
            (Mode::Sparse, _) => settings.mode = AttentionMode::Sparse,
        }
        self.refine(&mut settings)?;
        settings.pattern.validate()?;
        settings.selection.validate()?;
        Ok(settings)
    }

    /// What is asked for by name or file.
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
        let Some(name) = &self.pattern else {
            return Ok(default);
        };
        let pattern = match pattern_named(name) {
            Some(pattern) => pattern,
            None => {
                let pattern = read(name)?;
                if !pattern.selects() && self.seen.any() {
                    return Err(usage(
                        "--sink, --window and --last belong to a pattern given by name; with a pattern \
                         file, write them in the file",
                    ));
                }
                pattern
            }
        };
        Ok(AttentionSettings { pattern, ..default })
    }

    /// Puts the flags that override over it.
    fn refine(&self, settings: &mut AttentionSettings) -> Result<()> {
        let selects = settings.selects();
        let exact = settings.mode == AttentionMode::Dense && self.attention != Mode::Dense;
        for (flag, given) in [
            ("--recall", self.recall.is_some()),
            ("--correction", self.correction.is_some()),
            ("--choosers", self.choosers.is_some()),
        ] {
            if given && (exact || !selects) {
                let what = match exact {
                    true => "--preset exact".into(),
                    false => format!("the pattern `{}`", settings.pattern.name()),
                };
                return Err(usage(format!(
                    "{flag} is for heads that choose their keys, and {what} leaves them no choice; add \
                     --preset balanced or --pattern dynamic"
                )));
            }
        }
        if exact && self.seen.any() {
            return Err(usage(
                "--sink, --window and --last limit what tokens see, and --preset exact limits nothing; \
                 take --preset safe, or leave them out",
            ));
        }
        let SeenArgs { sink, window, last } = self.seen;
        let selection = &mut settings.selection;
        let (to_sink, to_window, to_last) = match &mut settings.pattern {
            Pattern::Triangular(t) if !selects => (&mut t.sink, &mut t.window, &mut t.last),
            _ => (
                &mut selection.sink,
                &mut selection.window,
                &mut selection.last,
            ),
        };
        *to_sink = sink.unwrap_or(*to_sink);
        *to_window = window.unwrap_or(*to_window);
        *to_last = last.unwrap_or(*to_last);
        selection.recall = self.recall.unwrap_or(selection.recall);
        match self.correction {
            Some(CorrectionArg::None) => selection.correction = Correction::None,
            Some(CorrectionArg::Mean) => selection.correction = Correction::Mean,
            Some(CorrectionArg::Gaussian) => selection.correction = Correction::Gaussian,
            None => {}
        }
        match self.choosers {
            Some(ChoosersArg::KvHeads) => selection.choosers = Choosers::KvHeads,
            Some(ChoosersArg::QueryHeads) => selection.choosers = Choosers::QueryHeads,
            None => {}
        }
        Ok(())
    }
}

impl SeenArgs {
    fn any(self) -> bool {
        self.sink.or(self.window).or(self.last).is_some()
    }
}

fn read(name: &str) -> Result<Pattern> {
    let path = Path::new(name);
    let text = std::fs::read_to_string(path).map_err(|error| {
        usage(format!(
            "--pattern {name}: neither `triangular`, `interval-slash`, `block-cluster`, `hybrid` or \
             `dynamic` nor a file that can be read ({error})"
        ))
    })?;
    let parsed = match path.extension().and_then(|e| e.to_str()) {
        Some("json") => serde_json::from_str(&text).map_err(|e| e.to_string()),
        Some("toml") => toml::from_str(&text).map_err(|e| e.to_string()),
        _ => Err("the name must end in .toml or .json".to_string()),
    };
    parsed.map_err(|error: String| {
        usage(format!(
            "--pattern {name}: {}\nA pattern file looks like this:\n  kind = \"triangular\"\n  \
             sink = 64\n  window = 1024\n  last = 128",
            error.trim_end()
        ))
    })
}

#[cfg(test)]
#[path = "attention_tests.rs"]
mod tests;
