//! `run`: one prompt, one answer.
//!
//! Text streams to standard output as it is generated; a closed pipe ends the run without a fuss.
//! The summary goes to standard error, or with `--json` one object to standard output.

use std::{
    io::{ErrorKind, Write, stdout},
    ops::ControlFlow,
};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use sparse_accelerate::AttentionSettings;
use sparse_accelerate_checkpoint::GenerationConfig;
use sparse_accelerate_engine::{
    GenerateSettings, Generation, SamplingSettings, Sequence, generate,
};

use crate::{
    args::{ModelArgs, SamplingArgs},
    attention::{self, AttentionArgs},
    calibrated,
    explain::ExplainArgs,
    interrupt,
    load::Opened,
    output::{print_json, print_text},
    progress::PromptMeter,
    prompt::{FormatArgs, SourceArgs},
    run_file::name_of,
    summary,
};

const DEFAULT_MAX_TOKENS: usize = 256;

const EXAMPLES: &str = "\
Examples:
  sparse-accelerate run --model DIR \"Why is the sky blue?\"
  sparse-accelerate run --model DIR --file report.txt --preset balanced --explain=why.json
  sparse-accelerate run --model DIR --file report.txt --attention sparse --pattern hybrid --recall 0.98
  cat report.txt | sparse-accelerate run --model DIR --stdin --raw --max-tokens 64 --json
";

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(after_help = format!("{EXAMPLES}\n{}", attention::help()))]
pub(crate) struct RunArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    attention: AttentionArgs,

    /// New tokens at most [default: 256, less where the model has no more positions]
    #[arg(long, value_name = "N", help_heading = "Output")]
    max_tokens: Option<usize>,

    /// One JSON object on standard output instead of streamed text and summary
    #[arg(long, help_heading = "Output")]
    json: bool,

    #[command(flatten)]
    explain: ExplainArgs,

    #[command(flatten)]
    sampling: SamplingArgs,
}

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    device: String,
    device_name: &'a str,
    device_reason: String,
    /// Layers of each stage.
    stages: Vec<usize>,
    dtype: String,
    chunk: usize,
    attention: AttentionSettings,
    #[serde(flatten)]
    generation: &'a Generation,
}

/// Runs the command.
pub(crate) fn run(args: &RunArgs) -> Result<()> {
    let mut attention = args.attention.settings()?;
    args.explain.check()?;
    let text = args.source.text()?;
    let opened = Opened::new(&args.model)?;
    let (config, dir) = (opened.dir.config(), &opened.dir);
    calibrated::apply(&mut attention, &opened.target, config, Some(dir))?;
    let sampling = sampling(opened.dir.generation(), &args.sampling);
    sampling
        .validate()
        .map_err(sparse_accelerate_engine::EngineError::from)?;
    let ids = args.format.ids(&opened.dir, &text)?;
    let room = opened.dir.config().max_positions.saturating_sub(ids.len());
    let max_tokens = args
        .max_tokens
        .unwrap_or(DEFAULT_MAX_TOKENS.min(room.max(1)));
    let (placement, plan) = opened.check(ids.len(), max_tokens, &[&attention])?;
    eprintln!("device: {}", opened.describe());
    eprintln!("prompt: {} tokens; planned memory {plan}", ids.len());

    let model = opened.load(&placement)?;
    let mut sequence = model.sequence(ids.len() + max_tokens)?;
    interrupt::ends(&sequence.cancel())?;
    let settings = GenerateSettings {
        max_tokens,
        chunking: model.chunking(ids.len(), opened.target.chunk, &attention),
        reuse: false,
        attention: attention.clone(),
        sampling,
        stop: args.sampling.stop.clone(),
        eos: opened.dir.generation().eos.clone(),
    };
    let generation = answer(&mut sequence, &opened, &ids, &settings, !args.json)?;
    if args.json {
        let report = Report {
            device: opened.target.devices.names(),
            device_name: &opened.target.devices.first().info.name,
            device_reason: opened.target.devices.reason(),
            stages: placement.counts(),
            dtype: opened.target.dtype.to_string(),
            chunk: opened.target.chunk,
            attention,
            generation: &generation,
        };
        print_json(&report)?;
    } else {
        print_text("\n")?;
        eprint!(
            "\n{}",
            summary::block(
                &opened.describe(),
                !opened.target.devices.is_flex(),
                &generation
            )
        );
    }
    let subject = format!("{}, {}", name_of(&args.model.model), opened.describe());
    let Generation {
        selection,
        decisions,
        ..
    } = &generation;
    args.explain.show(selection, decisions, &subject)
}

fn answer(
    sequence: &mut Sequence<'_>,
    opened: &Opened,
    ids: &[u32],
    settings: &GenerateSettings,
    stream: bool,
) -> Result<Generation> {
    let mut meter = PromptMeter::new("reading the prompt");
    let mut broken = Ok(());
    let generation = generate(
        sequence,
        opened.dir.tokenizer(),
        ids,
        settings,
        &mut |progress| meter.update(progress),
        &mut |piece| {
            if !stream {
                return ControlFlow::Continue(());
            }
            let mut out = stdout().lock();
            match out.write_all(piece.as_bytes()).and_then(|()| out.flush()) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    if error.kind() != ErrorKind::BrokenPipe {
                        broken = Err(error);
                    }
                    ControlFlow::Break(())
                }
            }
        },
    )?;
    broken.context("cannot write to standard output")?;
    Ok(generation)
}

/// The command line over the model's own defaults over greedy.
fn sampling(model: &GenerationConfig, args: &SamplingArgs) -> SamplingSettings {
    let off = SamplingSettings::default();
    for note in &model.notes {
        eprintln!("note: {note}");
    }
    // A model that does not sample is greedy whatever else its file says.
    let own = if model.do_sample {
        model.temperature.or(Some(1.0))
    } else {
        None
    };
    let settings = SamplingSettings {
        temperature: args.temperature.or(own).unwrap_or(off.temperature),
        top_k: args.top_k.or(model.top_k).unwrap_or(off.top_k),
        top_p: args.top_p.or(model.top_p).unwrap_or(off.top_p),
        min_p: args.min_p.or(model.min_p).unwrap_or(off.min_p),
        repetition_penalty: args
            .repetition_penalty
            .or(model.repetition_penalty)
            .unwrap_or(off.repetition_penalty),
        seed: args.seed,
    };
    let filters = args.top_k.is_some() || args.top_p.is_some() || args.min_p.is_some();
    if settings.temperature == 0.0 && filters {
        eprintln!("note: --top-k, --top-p and --min-p change nothing at temperature 0");
    }
    settings
}
