//! `bench decode`: tokens per second after prompts of several lengths.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use sparse_accelerate_engine::attention::parse_attentions;
use sparse_accelerate_eval::speed::{Case, DecodeSettings, decode, random_ids};
use sparse_accelerate_report::{record::Line, show};

use super::{
    output::{Output, OutputArgs},
    subject::{Subject, SubjectArgs},
};
use crate::{
    args::{at_least_one, lengths},
    progress::{Meter, Unit},
    run_file::About,
};

const EXAMPLES: &str = "\
Examples:
  sparse-accelerate bench decode --model DIR
  sparse-accelerate bench decode --weights random --config benches/shapes/llama-3.1-8b.json \\
      --lengths 2k,32k,128000 --attention triangular --out decode.jsonl
  sparse-accelerate bench decode --model DIR --devices cuda:0,cuda:1 --sequences 2

The cache is filled by a prefill with --attention, which is all it is for: decoding is dense. Every run
begins with the same cache; one untimed run comes first.";

/// Arguments of `bench decode`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DecodeArgs {
    #[command(flatten)]
    subject: SubjectArgs,

    /// Tokens in the cache before decoding begins; k is 1024
    #[arg(
        long,
        value_name = "N,N...",
        default_value = "2k,8k",
        help_heading = "What to measure"
    )]
    lengths: String,

    /// Attention of the prefill: dense, auto, sparse, triangular, balanced, ...; `eval --help` lists them
    #[arg(
        long,
        value_name = "A,A...",
        default_value = "dense",
        help_heading = "What to measure"
    )]
    attention: String,

    /// Tokens decoded in each run
    #[arg(
        long,
        value_name = "N",
        default_value_t = 32,
        help_heading = "What to measure"
    )]
    tokens: usize,

    /// Timed runs of each row, after one that is not; the median counts
    #[arg(
        long,
        value_name = "N",
        default_value_t = 5,
        help_heading = "What to measure"
    )]
    runs: usize,

    /// Sequences that decode at once, each with a cache of its own; a pipeline's devices then all have work
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        help_heading = "What to measure"
    )]
    sequences: usize,

    /// Seed of random weights and tokens
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        help_heading = "What to measure"
    )]
    seed: u64,

    #[command(flatten)]
    output: OutputArgs,
}

/// Runs the command.
pub(crate) fn run(args: &DecodeArgs) -> Result<ExitCode> {
    at_least_one(&[
        ("--runs", args.runs),
        ("--tokens", args.tokens),
        ("--sequences", args.sequences),
    ])?;
    let lengths = lengths("--lengths", &args.lengths)?;
    let named = parse_attentions(&args.attention)?;
    let cases: Vec<Case> = named.into_iter().map(Case::from).collect();
    let subject = Subject::new(&args.subject, args.seed)?;
    let mut settings = subject.settings();
    settings.insert("runs".into(), json!(args.runs));
    settings.insert("tokens".into(), json!(args.tokens));
    if args.sequences > 1 {
        settings.insert("sequences".into(), json!(args.sequences));
    }
    let about = About {
        command: "bench decode".into(),
        seed: args.seed,
        model: Some(subject.metadata.clone()),
        device: subject.target.devices.reason(),
        dtype: subject.target.dtype.to_string(),
        chunk: subject.target.chunk,
        settings,
    };
    let mut output = Output::new(&args.output, about)?;
    eprintln!("device: {}", subject.target.devices.reason());

    let mut model = None;
    for depth in lengths {
        for case in &cases {
            let done = |row: &Line| matches!(row, Line::Decode(row) if row.depth == depth && row.attention == case.name);
            if output.has(done) {
                continue;
            }
            let what = format!("{} at {} tokens", case.name, show::tokens(depth));
            let placement = match subject.check(depth, args.tokens, std::slice::from_ref(case)) {
                Ok(placement) => placement,
                Err(error) => {
                    output.skip(what, error)?;
                    continue;
                }
            };
            let model = subject.cut(&mut model, placement)?;
            let ids = random_ids(subject.config.vocab_size, depth, args.seed);
            let settings = DecodeSettings {
                chunk: subject.target.chunk,
                tokens: args.tokens,
                runs: args.runs,
                sequences: args.sequences,
            };
            let mut meter = Meter::new(format!("{what}, prefill"), Unit::Tokens);
            let row = decode(model, case, &ids, settings, &mut |progress| {
                meter.set(progress.done as u64, progress.total as u64);
            });
            meter.clear();
            match row {
                Ok(row) => {
                    eprintln!("{what}: {} ms a token", show::number(1e3 * row.per_token_s));
                    output.push(Line::Decode(row))?;
                }
                Err(error) => output.skip(what, error)?,
            }
        }
    }
    output.finish(None)
}
