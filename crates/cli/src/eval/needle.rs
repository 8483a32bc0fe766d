//! `eval needle`: facts hidden in the user's text.

use anyhow::Result;
use clap::Args;
use serde_json::json;
use sparse_accelerate_eval::{AnswersPlan, Format, NEEDLE, Sources, parse_tasks, run_answers};

use super::{
    common::{self, CommonArgs, ComparedArgs, Run, TextArgs},
    summary,
};
use crate::{exit::usage, load::Opened, output::print_text};

const HELP: &str = "\
A sentence such as \"One of the special magic numbers for quiet-harbor is: 4716302.\" is put between two
sentences of the text, at each of --depths; the question at the end asks for the number.

  single      one such sentence
  multikey    three more with other keys, which distract
  multivalue  four numbers of one key, all asked for; one stands at the depth

Score: the share of the asked numbers that are in the answer, 100 % is all. A model that is at 100 %
dense and lower sparse loses facts to the pattern; one that is low dense is too weak for the length, and
says nothing. Prompt and answer together have --lengths tokens of the model.

Examples:
  sparse-accelerate eval needle --model DIR
  sparse-accelerate eval needle --model DIR --text book.txt --lengths 8k,32k --samples 5 \\
      --attention dense,triangular:window=1024,triangular:window=4096 --kinds all";

/// Arguments of `eval needle`.
#[derive(Debug, Args)]
#[command(
    after_help = HELP,
    mut_arg("samples", |arg| arg.help("Samples of each length, kind and depth: other keys, numbers and places in the text"))
)]
pub(crate) struct NeedleArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    text: TextArgs,
    #[command(flatten)]
    compared: ComparedArgs,

    /// Places of the needle, percent of the text
    #[arg(
        long,
        value_name = "P,Q",
        value_delimiter = ',',
        default_value = "0,25,50,75,100",
        help_heading = "Prompts"
    )]
    depths: Vec<f64>,

    /// single, multikey, multivalue, separated by commas, or all
    #[arg(
        long,
        value_name = "KIND",
        default_value = "single",
        help_heading = "Prompts"
    )]
    kinds: String,

    /// Seed; the same seed gives the same prompts
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Prompts")]
    seed: u64,

    /// Do not use the model's chat template
    #[arg(long, help_heading = "Prompts")]
    raw: bool,
}

/// Runs the command.
pub(crate) fn run(args: &NeedleArgs) -> Result<()> {
    let kinds: Vec<String> = args
        .kinds
        .split(',')
        .map(|kind| match kind.trim() {
            "all" => "all".to_owned(),
            kind => format!("needle_{kind}"),
        })
        .collect();
    if args.depths.is_empty() {
        return Err(usage("--depths: no depth; give at least one"));
    }
    let outside = |percent: &&f64| !(0.0..=100.0).contains(*percent);
    if let Some(percent) = args.depths.iter().find(outside) {
        return Err(usage(format!(
            "--depths is {percent}, but must be between 0 and 100 percent"
        )));
    }
    let plan = AnswersPlan {
        attentions: args.compared.attentions()?,
        tasks: parse_tasks(&kinds.join(","), &NEEDLE)?,
        lengths: args.compared.lengths()?,
        depths: args.depths.iter().map(|percent| percent / 100.0).collect(),
        samples: args.compared.samples,
        seed: args.seed,
    };
    let opened = Opened::new(&args.common.model)?;
    let corpus = args.text.corpus(opened.dir.tokenizer())?;
    let sources = Sources {
        corpus: &corpus,
        questions: None,
        format: Format::new(&opened.dir, args.raw),
    };
    plan.check(&sources, opened.dir.config().max_positions)?;
    let settings = json!({
        "attention": common::names(&plan.attentions),
        "tasks": plan.tasks.iter().map(|task| task.name).collect::<Vec<_>>(),
        "lengths": plan.lengths,
        "depths": plan.depths,
        "samples": plan.samples,
        "raw": sources.format.is_raw(),
        "text": common::text_metadata(&corpus),
    });
    let run = Run::open(&args.common, &opened, "needle", plan.seed, settings)?;
    let rows = answers(&opened, &plan, &sources, run)?;
    print_text(&summary::needle(&rows))
}

/// Loads the model and asks; shared with `eval ruler`.
pub(super) fn answers(
    opened: &Opened,
    plan: &AnswersPlan,
    sources: &Sources<'_>,
    run: Run,
) -> Result<Vec<sparse_accelerate_report::record::Line>> {
    let longest = plan.lengths.iter().copied().max().unwrap_or(0);
    common::measure(
        opened,
        longest,
        &plan.attentions,
        run,
        |subject, file, finished, progress| {
            run_answers(subject, plan, sources, file, finished, progress)
        },
    )
}
