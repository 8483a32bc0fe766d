//! `--attention`, `--pattern` and the parameters of the triangular pattern.
//!
//! A pattern file holds one pattern in TOML or JSON, for example `kind = "triangular"`,
//! `sink = 64`, `window = 1024`, `last = 128`. Its parameters then stand in the file, so `--sink`,
//! `--window` and `--last` are refused beside it.

use std::path::Path;

use anyhow::Result;
use clap::{Args, ValueEnum};
use sparse_accelerate::{AttentionMode, AttentionSettings, Pattern, Triangular};

use crate::exit::usage;

/// How attention over the prompt is computed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Attention over the prompt")]
pub(crate) struct AttentionArgs {
    /// auto is sparse for long prompts (8192 tokens or more); dense and sparse are what they say
    #[arg(long, value_name = "MODE", default_value = "auto")]
    attention: Mode,

    /// triangular, or a TOML or JSON file with a pattern
    #[arg(long, value_name = "PATTERN", default_value = "triangular")]
    pattern: String,

    #[command(flatten)]
    triangular: TriangularArgs,
}

/// Parameters of the triangular pattern, all optional.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct TriangularArgs {
    /// Tokens at the start of the prompt that every token sees [default: 256]
    #[arg(long, value_name = "N")]
    sink: Option<usize>,

    /// Latest tokens that every token sees, itself included [default: 1024]
    #[arg(long, value_name = "N")]
    window: Option<usize>,

    /// Tokens at the end of the prompt that see everything [default: 128]
    #[arg(long, value_name = "N")]
    last: Option<usize>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    Auto,
    Dense,
    Sparse,
}

impl AttentionArgs {
    /// The settings, checked.
    pub(crate) fn settings(&self) -> Result<AttentionSettings> {
        let TriangularArgs { sink, window, last } = self.triangular;
        let pattern = if self.pattern == "triangular" {
            let default = Triangular::default();
            Pattern::Triangular(Triangular {
                sink: sink.unwrap_or(default.sink),
                window: window.unwrap_or(default.window),
                last: last.unwrap_or(default.last),
            })
        } else if sink.or(window).or(last).is_some() {
            return Err(usage(
                "--sink, --window and --last belong to --pattern triangular; with a pattern file, \
                 write them in the file",
            ));
        } else {
            read(&self.pattern)?
        };
        pattern.validate()?;
        let mode = match self.attention {
            Mode::Auto => AttentionMode::Auto,
            Mode::Dense => AttentionMode::Dense,
            Mode::Sparse => AttentionMode::Sparse,
        };
        Ok(AttentionSettings {
            mode,
            pattern,
            ..AttentionSettings::default()
        })
    }
}

fn read(name: &str) -> Result<Pattern> {
    let path = Path::new(name);
    let text = std::fs::read_to_string(path).map_err(|error| {
        usage(format!(
            "--pattern {name}: neither `triangular` nor a file that can be read ({error})"
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
