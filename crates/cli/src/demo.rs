//! `demo`: one question at the end of a long text, answered dense and sparse, side by side.
//!
//! The text and the question are compiled in. Both runs share one loaded model and one prompt; the
//! sparse answer is compared with the dense one by its words and by the hidden state it comes from.
//! Exit code 1 when the dense answer lacks the expected text: then the set-up is wrong, not sparsity.

use std::{ops::ControlFlow, process::ExitCode, time::Instant};

use anyhow::Result;
use clap::Args;
use sparse_accelerate::{AttentionMode, AttentionSettings, Pattern, Preset, Triangular};
use sparse_accelerate_engine::{
    Chunking, GenerateSettings, Generation, Loaded, SamplingSettings, generate, memory,
};

use crate::{
    args::ModelArgs,
    attention::set,
    demo_report::Report,
    demo_spec::Spec,
    exit::usage,
    load::Opened,
    output::{print_json, print_text},
    progress::PromptMeter,
};

const EXAMPLES: &str = "\
Examples:
  sparse-accelerate demo --model DIR
  sparse-accelerate demo --model DIR --device wgpu --tokens 8000 --window 2048
  sparse-accelerate demo --model DIR --preset balanced

Without --preset every token sees the first --sink tokens and the latest --window ones; the last --last tokens, which
hold the question, see everything. With --preset safe, balanced, fast or paper every head chooses its keys
from the input.";

/// Arguments of `demo`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    model: ModelArgs,

    /// Tokens of text before the question [default: what the question was chosen for]
    #[arg(long, value_name = "N", help_heading = "Demo")]
    tokens: Option<usize>,

    /// New tokens at most
    #[arg(long, value_name = "N", default_value_t = 32, help_heading = "Demo")]
    max_tokens: usize,

    /// Tokens at the start of the prompt that every token sees
    #[arg(long, value_name = "N", default_value_t = 64, help_heading = "Demo")]
    sink: usize,

    /// Latest tokens that every token sees, itself included
    #[arg(long, value_name = "N", default_value_t = 1024, help_heading = "Demo")]
    window: usize,

    /// Tokens at the end of the prompt that see everything
    #[arg(long, value_name = "N", default_value_t = 128, help_heading = "Demo")]
    last: usize,

    /// safe, balanced, fast or paper: the sparse side chooses its keys from the input
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with_all = ["sink", "window", "last"],
        help_heading = "Demo"
    )]
    preset: Option<String>,

    /// Least share of a head's attention mass to keep with paper, with the others what a choice begins with, 0 to 1
    /// [default: the preset's]
    #[arg(long, value_name = "X", requires = "preset", help_heading = "Demo")]
    recall: Option<String>,

    /// Largest error of a head's output, over that of the layer's mean head [default: the preset's]
    #[arg(long, value_name = "X", requires = "preset", help_heading = "Demo")]
    error: Option<String>,

    /// One JSON object on standard output instead of the table
    #[arg(long, help_heading = "Demo")]
    json: bool,
}

impl DemoArgs {
    /// The attention of the sparse side, checked; the demo's prompt is sparse however short it is.
    fn sparse(&self) -> Result<AttentionSettings> {
        let settings = match &self.preset {
            None => AttentionSettings::sparse(Pattern::Triangular(Triangular {
                sink: self.sink,
                window: self.window,
                last: self.last,
            })),
            Some(name) => {
                let preset: Preset = name
                    .parse()
                    .map_err(|error| usage(format!("--preset: {error}")))?;
                if preset == Preset::Exact {
                    return Err(usage(
                        "--preset exact is the dense side, which is always shown; take safe, balanced, \
                         fast or paper",
                    ));
                }
                let mut settings = preset.settings();
                settings.mode = AttentionMode::Sparse;
                for (name, value) in [("recall", &self.recall), ("error", &self.error)] {
                    if let Some(value) = value {
                        set(&mut settings, name, value)?;
                    }
                }
                settings
            }
        };
        settings.pattern.validate()?;
        settings.selection.validate()?;
        Ok(settings)
    }
}

/// Runs the command.
pub(crate) fn run(args: &DemoArgs) -> Result<ExitCode> {
    let sparse = args.sparse()?;
    let pattern = sparse.pattern;
    let spec = Spec::built_in()?;
    let opened = Opened::new(&args.model)?;
    let ids = spec.prompt(&opened.dir, args.tokens.unwrap_or(spec.tokens))?;
    let attentions = [&AttentionSettings::dense(), &sparse];
    let (placement, plan) = opened.check(ids.len(), args.max_tokens, &attentions)?;
    eprintln!("device: {}", opened.describe());
    eprintln!(
        "prompt: {} tokens, the question at the end: {}",
        ids.len(),
        spec.question
    );
    eprintln!("planned memory: {plan}");
    let model = opened.load(&placement)?;

    let case = Case {
        args,
        opened: &opened,
        model: &model,
        ids: &ids,
    };
    let settings = [AttentionSettings::dense(), sparse];
    if !opened.target.devices.is_flex() {
        case.warm_up(&settings)?;
    }
    let dense = case.run("dense", settings[0].clone())?;
    let sparse = case.run("sparse", settings[1].clone())?;
    let report = Report::new(&spec, &opened, pattern, dense, sparse);
    if args.json {
        print_json(&report)?;
    } else {
        print_text(&report.render())?;
    }
    Ok(if report.dense.found {
        ExitCode::SUCCESS
    } else {
        eprintln!(
            "error: the dense answer lacks {:?}; this model cannot answer the question, so the \
             comparison says nothing. Try fewer --tokens or another model",
            spec.expect
        );
        ExitCode::FAILURE
    })
}

/// Model and prompt that both runs share.
struct Case<'a> {
    args: &'a DemoArgs,
    opened: &'a Opened,
    model: &'a Loaded,
    ids: &'a [u32],
}

impl Case<'_> {
    fn chunking(&self, attention: &AttentionSettings) -> Chunking {
        let chunk = self.opened.target.chunk;
        self.model.chunking(self.ids.len(), chunk, attention)
    }

    /// One prefill each that is not counted: a GPU compiles and tunes its kernels at first use, and
    /// whichever run came first would pay for both.
    fn warm_up(&self, settings: &[AttentionSettings]) -> Result<()> {
        let start = Instant::now();
        let mut session = self.model.sequence(self.ids.len() + 1)?;
        for attention in settings {
            let mut meter = PromptMeter::new("compiling and tuning kernels");
            let mut update = |progress| meter.update(progress);
            let chunking = self.chunking(attention);
            session.prefill(self.ids, chunking, attention, &mut update)?;
            session.decode(self.ids[0])?;
        }
        let seconds = start.elapsed().as_secs_f64();
        eprintln!("kernels compiled and tuned in {seconds:.1} s, not counted below");
        Ok(())
    }

    /// One run in a session of its own; its cache is freed before the next.
    fn run(&self, name: &str, attention: AttentionSettings) -> Result<Generation> {
        memory::reset_peak();
        let mut session = self.model.sequence(self.ids.len() + self.args.max_tokens)?;
        let settings = GenerateSettings {
            max_tokens: self.args.max_tokens,
            chunking: self.chunking(&attention),
            reuse: false,
            attention,
            sampling: SamplingSettings::default(),
            stop: Vec::new(),
            eos: self.opened.dir.generation().eos.clone(),
        };
        let mut meter = PromptMeter::new(format!("{name}: reading the prompt"));
        let generation = generate(
            &mut session,
            self.opened.dir.tokenizer(),
            self.ids,
            &settings,
            &mut |progress| {
                meter.update(progress);
                if progress.done == progress.total {
                    eprintln!("{name}: answering");
                }
            },
            &mut |_| ControlFlow::Continue(()),
        )?;
        Ok(generation)
    }
}
