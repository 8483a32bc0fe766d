//! `bench ttft`: prompts of several lengths, several attentions, dense always among them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use clap::Args;
use serde_json::json;
use sparse_accelerate::AttentionMode;
use sparse_accelerate_checkpoint::ModelDir;
use sparse_accelerate_engine::{Loaded, attention::parse_attentions};
use sparse_accelerate_eval::{
    speed::{Case, ForcedDensity, Measured, SpeedError, TtftSettings, random_ids, repeated, ttft},
    text_hash,
};
use sparse_accelerate_report::{record::Line, show};

use super::{
    output::{Output, OutputArgs, check_plot},
    subject::{Subject, SubjectArgs},
};
use crate::{
    args::{at_least_one, lengths},
    calibrated,
    exit::usage,
    progress::{Meter, Unit},
    run_file::About,
};

const EXAMPLES: &str = "\
Examples:
  sparse-accelerate bench ttft --model DIR
  sparse-accelerate bench ttft --model DIR --text book.txt --lengths 2k,8k,32k \\
      --attention triangular,balanced,fast --out ttft.jsonl --plot ttft.svg
  sparse-accelerate bench ttft --weights random --config benches/shapes/llama-3.1-8b.json \\
      --lengths 2k,8k,32k,128k --density 8k=0.54,32k=0.187,128k=0.046 --out ttft.jsonl

Dense is always the next row. The first run compiles and tunes and is reported apart. TTFT is the time
until the logits are on the host. Below the times stands how they grow: the slope of log2 TTFT over
log2 length (1 is linear, 2 quadratic), and TTFT(4L) / TTFT(L) for every such pair.

--density imposes a density: random weights attend to everything, so what they select means nothing. Every
layer selects all the same, as the preset `balanced` does, and the time of that counts; attention then
reads random blocks of keys of the given density in place of what was selected. Such rows are named
`balanced, forced density`; their answers mean nothing.";

/// Arguments of `bench ttft`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TtftArgs {
    #[command(flatten)]
    subject: SubjectArgs,

    /// Prompt lengths in tokens; k is 1024
    #[arg(
        long,
        value_name = "N,N...",
        default_value = "2k,8k",
        help_heading = "What to measure"
    )]
    lengths: String,

    /// Attentions beside dense: auto, sparse, triangular, safe, balanced, fast, paper, ..., baseline:NAME, with
    /// parameters after colons; `eval --help` lists them
    /// [default: triangular, or none with --density]
    #[arg(long, value_name = "A,A...", help_heading = "What to measure")]
    attention: Option<String>,

    /// Impose a density after a selection that is timed, one for all lengths or one for each:
    /// 8k=0.54,32k=0.187
    #[arg(long, value_name = "X|N=X,...", help_heading = "What to measure")]
    density: Option<String>,

    /// Tokens of the blocks that --density keeps or drops, a multiple of 64
    #[arg(
        long,
        value_name = "N",
        default_value_t = 128,
        requires = "density",
        help_heading = "What to measure"
    )]
    block: usize,

    /// Timed runs of each row, after one that is not; the median counts
    #[arg(
        long,
        value_name = "N",
        default_value_t = 5,
        help_heading = "What to measure"
    )]
    runs: usize,

    /// Prompts are the start of this text, repeated where it is too short [default: random tokens]
    #[arg(
        long,
        value_name = "FILE",
        requires = "model",
        help_heading = "What to measure"
    )]
    text: Option<PathBuf>,

    /// Seed of random weights, tokens and blocks
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        help_heading = "What to measure"
    )]
    seed: u64,

    #[command(flatten)]
    output: OutputArgs,

    /// Draw TTFT against length
    #[arg(long, value_name = "FILE.svg|.png", help_heading = "Output")]
    plot: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &TtftArgs) -> Result<ExitCode> {
    check_plot(args.plot.as_deref())?;
    at_least_one(&[("--runs", args.runs)])?;
    let lengths = lengths("--lengths", &args.lengths)?;
    let forced = forced(args)?;
    let attentions = match (&args.attention, &forced) {
        (Some(text), _) => text.as_str(),
        (None, Some(_)) => "dense",
        (None, None) => "triangular",
    };
    let named = parse_attentions(attentions)?;
    let mut cases: Vec<Case> = named
        .into_iter()
        .map(Case::from)
        .filter(|case| !case.is_dense())
        .collect();
    let subject = Subject::new(&args.subject, args.seed)?;
    for case in &mut cases {
        // `auto` is what `run` does by default.
        if case.settings.mode == AttentionMode::Auto {
            let (target, config) = (&subject.target, &subject.config);
            calibrated::apply(&mut case.settings, target, config, subject.dir.as_ref())?;
        }
    }
    let text = prompt_text(args, &subject)?;
    let mut output = Output::new(&args.output, about(args, &subject, text.as_ref()))?;
    eprintln!("device: {}", subject.target.devices.reason());

    let mut model = None;
    for length in lengths {
        let mut wanted = vec![Case::dense()];
        let heads = [subject.config.heads, subject.config.kv_heads];
        match forced.as_ref().map(|forced| forced.selected(length, heads)) {
            Some(None) => output.skip(
                what(&ForcedDensity::name(), length),
                format!("--density gives no value for {length} tokens"),
            )?,
            Some(Some(case)) => wanted.push(case),
            None => {}
        }
        wanted.extend(cases.iter().cloned());
        let done = |name: &str, row: &Line| matches!(row, Line::Ttft(row) if row.length == length && row.attention == name);
        if wanted
            .iter()
            .all(|case| output.has(|row| done(&case.name, row)))
        {
            continue;
        }
        let placement = match subject.check(length, 0, &wanted) {
            Ok(placement) => placement,
            Err(error) => {
                output.skip(format!("{} tokens", show::tokens(length)), error)?;
                continue;
            }
        };
        let model = subject.cut(&mut model, placement)?;
        let ids = match &text {
            Some(text) => repeated(&text.ids, length),
            None => random_ids(subject.config.vocab_size, length, args.seed),
        };
        let settings = TtftSettings {
            chunk: subject.target.chunk,
            runs: args.runs,
        };
        let mut dense = None;
        for case in &wanted {
            let there = output.has(|row| done(&case.name, row));
            // Dense that is there is computed once more, for what the others are compared with.
            let settings = match (there, case.is_dense()) {
                (true, false) => continue,
                (true, true) => TtftSettings {
                    runs: 1,
                    ..settings
                },
                _ => settings,
            };
            match measure(model, case, &ids, settings, dense.as_deref()) {
                Ok(measured) => {
                    if case.is_dense() {
                        dense = Some(measured.last_hidden);
                    }
                    if !there {
                        output.push(Line::Ttft(measured.row))?;
                    }
                }
                Err(error) => output.skip(what(&case.name, length), error)?,
            }
        }
    }
    output.finish(args.plot.as_deref())
}

fn what(name: &str, length: usize) -> String {
    format!("{name} at {} tokens", show::tokens(length))
}

/// One row, with progress.
pub(crate) fn timed(
    model: &Loaded,
    case: &Case,
    ids: &[u32],
    settings: TtftSettings,
    dense: Option<&[f32]>,
) -> Result<Measured, SpeedError> {
    let mut meter = Meter::new(what(&case.name, ids.len()), Unit::Tokens);
    let total = ((settings.runs + 1) * ids.len()) as u64;
    let measured = ttft(model, case, ids, settings, dense, &mut |run, progress| {
        meter.set((run * progress.total + progress.done) as u64, total);
    });
    meter.clear();
    measured
}

/// [`timed`], and what it found in words.
fn measure(
    model: &Loaded,
    case: &Case,
    ids: &[u32],
    settings: TtftSettings,
    dense: Option<&[f32]>,
) -> Result<Measured, SpeedError> {
    let label = what(&case.name, ids.len());
    let measured = timed(model, case, ids, settings, dense);
    if let Ok(measured) = &measured {
        let row = &measured.row;
        let (ttft, first) = (show::number(row.ttft_s), show::number(row.first_s));
        let overlap = row.overlap().map_or(String::new(), |overlap| {
            let stages = row.stages.len();
            format!(", {overlap:.2} of {stages} devices at work")
        });
        eprintln!("{label}: {ttft} s (first run {first} s{overlap})");
    }
    measured
}

fn forced(args: &TtftArgs) -> Result<Option<ForcedDensity>> {
    let Some(text) = &args.density else {
        return Ok(None);
    };
    let forced = ForcedDensity::parse(text, args.block, args.seed)?;
    if args.block == 0
        || !args
            .block
            .is_multiple_of(sparse_accelerate::index::QUERY_TILE)
    {
        return Err(usage(format!(
            "--block is {}, but must be a multiple of {}",
            args.block,
            sparse_accelerate::index::QUERY_TILE
        )));
    }
    Ok(Some(forced))
}

/// A text given by `--text`.
pub(crate) struct Text {
    pub(crate) hash: String,
    pub(crate) ids: Vec<u32>,
}

/// Reads `--text`.
fn prompt_text(args: &TtftArgs, subject: &Subject) -> Result<Option<Text>> {
    match (&args.text, &subject.dir) {
        (Some(path), Some(dir)) => Text::read(path, dir).map(Some),
        _ => Ok(None),
    }
}

impl Text {
    /// Reads a text as tokens, of which there must be some.
    pub(crate) fn read(path: &Path, dir: &ModelDir) -> Result<Self> {
        let text = fs::read_to_string(path)
            .map_err(|error| usage(format!("--text {}: {error}", path.display())))?;
        let ids = dir.tokenizer().encode(&text, true)?;
        if ids.is_empty() {
            let path = path.display();
            return Err(usage(format!("--text {path}: there is nothing in it")));
        }
        Ok(Self {
            hash: text_hash(&text),
            ids,
        })
    }
}

fn about(args: &TtftArgs, subject: &Subject, text: Option<&Text>) -> About {
    let mut settings = subject.settings();
    settings.insert("runs".into(), json!(args.runs));
    settings.insert("density".into(), json!(args.density));
    if args.density.is_some() {
        settings.insert("selection".into(), json!(ForcedDensity::selection()));
    }
    settings.insert("block".into(), json!(args.block));
    settings.insert("text".into(), json!(text.map(|text| &text.hash)));
    About {
        command: "bench ttft".into(),
        seed: args.seed,
        model: Some(subject.metadata.clone()),
        device: subject.target.devices.reason(),
        dtype: subject.target.dtype.to_string(),
        chunk: subject.target.chunk,
        settings,
    }
}
