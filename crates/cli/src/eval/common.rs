//! Parts that the four measures share: arguments, the text, the run file and the loaded model.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use serde_json::{Map, Value, json};
use sparse_accelerate_checkpoint::Tokenizer;
use sparse_accelerate_engine::{
    Cancel, Loaded,
    attention::{NamedAttention, parse_attentions},
};
use sparse_accelerate_eval::{Corpus, EvalError, OnProgress, Subject};
use sparse_accelerate_report::record::{Line, RunFile};

use crate::{
    args::{ModelArgs, lengths},
    demo_spec::TEXT,
    interrupt,
    load::Opened,
    progress::{Meter, Unit},
    report::write_plots,
    run_file::{About, checkpoint_metadata},
};

use super::progress::RunMeter;

/// Arguments of every measure.
#[derive(Debug, Args)]
pub(crate) struct CommonArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,

    /// Run file to write, or to go on with [default: eval-MEASURE-MODEL.jsonl in this folder]
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    out: Option<PathBuf>,

    /// Folder for plots of the run file, as SVG and PNG [default: the run file's name without its
    /// extension]
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    plots: Option<PathBuf>,

    /// Draw nothing
    #[arg(long, conflicts_with = "plots", help_heading = "Output")]
    no_plots: bool,
}

/// Attentions, and on how many prompts of which lengths they are compared. A command replaces the defaults
/// that do not suit it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Prompts")]
pub(crate) struct ComparedArgs {
    /// Attentions to compare, separated by commas; `eval --help` lists them
    #[arg(long, value_name = "A,B", default_value = "dense,sparse")]
    attention: String,

    /// Tokens of a prompt, its answer included; k is 1024
    #[arg(long, value_name = "N,M", default_value = "2k,4k,8k")]
    lengths: String,

    /// Prompts of each kind and length
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) samples: usize,
}

impl ComparedArgs {
    /// The attentions; dense comes first, for the others are compared with it.
    pub(crate) fn attentions(&self) -> Result<Vec<NamedAttention>> {
        let mut list = parse_attentions(&self.attention)?;
        list.sort_by_key(|named| named.name != "dense");
        Ok(list)
    }

    /// The lengths, ascending.
    pub(crate) fn lengths(&self) -> Result<Vec<usize>> {
        lengths("--lengths", &self.lengths)
    }
}

/// Source of the text.
#[derive(Debug, Args)]
#[command(next_help_heading = "Prompts")]
pub(crate) struct TextArgs {
    /// Text to make prompts of (UTF-8) [default: the demo's, some 10,000 tokens of the Jargon File]
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
}

impl TextArgs {
    /// The text with its tokens.
    pub(crate) fn corpus(&self, tokenizer: &Tokenizer) -> Result<Corpus, EvalError> {
        corpus(self.text.as_deref(), tokenizer)
    }
}

/// The text of a file, or the demo's, with its tokens.
pub(crate) fn corpus(text: Option<&Path>, tokenizer: &Tokenizer) -> Result<Corpus, EvalError> {
    match text {
        Some(path) => Corpus::read(path, tokenizer),
        None => Corpus::new("the demo's text", TEXT, tokenizer),
    }
}

/// How a text appears in a run's settings: by content, since a name may be reused.
pub(crate) fn text_metadata(corpus: &Corpus) -> Value {
    json!({"name": corpus.name(), "sha256": corpus.sha256(), "tokens": corpus.ids().len()})
}

/// Names of attentions, for settings.
pub(crate) fn names(attentions: &[NamedAttention]) -> Vec<&str> {
    attentions.iter().map(|named| named.name.as_str()).collect()
}

/// A run file with its finished rows.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) file: RunFile,
    pub(crate) finished: Vec<Line>,
    plots: Option<PathBuf>,
}

impl Run {
    /// Hashes the model, opens the file and says where it is.
    pub(crate) fn open(
        common: &CommonArgs,
        opened: &Opened,
        measure: &str,
        seed: u64,
        settings: Value,
    ) -> Result<Self> {
        let dir = &opened.dir;
        let mut meter = Meter::new("hashing the model", Unit::Bytes);
        let mut bytes = 0;
        let model = checkpoint_metadata(dir, &mut |done, total| {
            bytes = done;
            meter.set(done, total);
        })?;
        meter.finish(bytes);
        let out = common.out.clone();
        let out =
            out.unwrap_or_else(|| PathBuf::from(format!("eval-{measure}-{}.jsonl", model.name)));
        let settings = match settings {
            Value::Object(settings) => settings,
            _ => Map::new(),
        };
        let header = About {
            command: format!("eval {measure}"),
            seed,
            model: Some(model),
            device: opened.target.devices.reason(),
            dtype: opened.target.dtype.to_string(),
            chunk: opened.target.chunk,
            settings,
        }
        .header();
        let (file, finished) = RunFile::create_or_resume(&out, &header).map_err(EvalError::from)?;
        eprintln!("device: {}", opened.describe());
        match finished.len() {
            0 => eprintln!("rows: written to {} as they are finished", out.display()),
            n => eprintln!("rows: {n} are in {} already; going on", out.display()),
        }
        let plots = common.plots.clone();
        let plots = plots.unwrap_or_else(|| out.with_extension(""));
        Ok(Self {
            file,
            finished,
            plots: (!common.no_plots && plots != out).then_some(plots),
        })
    }

    /// Every row of the file, read back, and its plots drawn.
    pub(crate) fn rows(self) -> Result<Vec<Line>> {
        let path = self.file.path().to_owned();
        if !path.is_file() {
            return Ok(self.finished);
        }
        drop(self.file);
        let run = sparse_accelerate_report::Run::read(&path)?;
        let Some(folder) = self.plots else {
            return Ok(run.rows);
        };
        let runs = [run];
        write_plots(&runs, &folder)?;
        let [run] = runs;
        Ok(run.rows)
    }
}

/// Loads the model, runs what the file lacks with progress, and gives every row of the file.
pub(crate) fn measure(
    opened: &Opened,
    longest: usize,
    attentions: &[NamedAttention],
    mut run: Run,
    rows: impl FnOnce(&Subject<'_>, &mut RunFile, &[Line], OnProgress<'_>) -> Result<(), EvalError>,
) -> Result<Vec<Line>> {
    let model = load(opened, longest, attentions)?;
    let cancel = Cancel::default();
    interrupt::ends(&cancel)?;
    let subject = Subject {
        dir: &opened.dir,
        model: &model,
        chunk: opened.target.chunk,
        warm_up: !opened.target.devices.is_flex(),
        cancel: &cancel,
    };
    let mut meter = RunMeter::new();
    let finished = std::mem::take(&mut run.finished);
    rows(&subject, &mut run.file, &finished, &mut |progress| {
        meter.update(progress)
    })?;
    meter.finish();
    run.rows()
}

/// Checks memory for prompts of up to `longest` tokens and loads the weights.
fn load(opened: &Opened, longest: usize, attentions: &[NamedAttention]) -> Result<Loaded> {
    let settings: Vec<_> = attentions.iter().map(|named| &named.settings).collect();
    let (placement, plan) = opened.check(longest, 0, &settings)?;
    eprintln!("planned memory: {plan}");
    opened.load(&placement)
}
