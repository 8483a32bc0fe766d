//! `eval ruler`: the task families of RULER.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use sparse_accelerate_eval::{AnswersPlan, Format, Questions, RULER, Sources, parse_tasks};

use super::{
    common::{self, CommonArgs, ComparedArgs, Run, TextArgs},
    needle, summary,
};
use crate::{load::Opened, output::print_text};

const HELP: &str = "\
Tasks, after RULER (arXiv 2404.06654; wording and parameters of NVIDIA/RULER, Apache-2.0):

  niah_single_1..3    one needle: in noise, in the text, a UUID in the text
  niah_multikey_1..3  four needles; a haystack of nothing but needles; the same with UUIDs
  niah_multivalue     four values of one key
  niah_multiquery     four keys asked for at once
  vt                  variable tracking: which variables hold a value, through four assignments
  cwe                 the ten most common words of a list
  fwe                 the three most frequent words of a coded text
  qa                  questions on documents; needs --questions

Other than RULER: essays are --text, and the words of cwe are its different words; single-needle
questions ask in the singular; answers end as soon as everything expected is in them.

Score: the share of the expected words that are in the answer (qa: any of them), as in RULER. Compare
attentions within a table; the numbers of other harnesses differ by their texts.

A line of --questions: {\"document\": \"...\", \"question\": \"...\", \"answers\": [\"...\"]}

Examples:
  sparse-accelerate eval ruler --model DIR --text book.txt --lengths 4k,8k
  sparse-accelerate eval ruler --model DIR --text book.txt --lengths 32k --tasks vt,cwe,fwe --samples 20";

/// Arguments of `eval ruler`.
#[derive(Debug, Args)]
#[command(
    after_help = HELP,
    mut_arg("lengths", |arg| arg.default_value("4k,8k")),
    mut_arg("samples", |arg| arg.default_value("5").help("Samples of each length and task"))
)]
pub(crate) struct RulerArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    text: TextArgs,
    #[command(flatten)]
    compared: ComparedArgs,

    /// Tasks, separated by commas, or all
    #[arg(
        long,
        value_name = "TASK",
        default_value = "all",
        help_heading = "Prompts"
    )]
    tasks: String,

    /// JSON lines of documents, questions and answers, for qa
    #[arg(long, value_name = "FILE", help_heading = "Prompts")]
    questions: Option<PathBuf>,

    /// Seed; the same seed gives the same prompts
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Prompts")]
    seed: u64,

    /// Do not use the model's chat template
    #[arg(long, help_heading = "Prompts")]
    raw: bool,
}

/// Runs the command.
pub(crate) fn run(args: &RulerArgs) -> Result<()> {
    let plan = AnswersPlan {
        attentions: args.compared.attentions()?,
        tasks: parse_tasks(&args.tasks, &RULER)?,
        lengths: args.compared.lengths()?,
        depths: Vec::new(),
        samples: args.compared.samples,
        seed: args.seed,
    };
    let questions = args.questions.as_deref().map(Questions::read).transpose()?;
    let opened = Opened::new(&args.common.model)?;
    let corpus = args.text.corpus(opened.dir.tokenizer())?;
    let sources = Sources {
        corpus: &corpus,
        questions: questions.as_ref(),
        format: Format::new(&opened.dir, args.raw),
    };
    plan.check(&sources, opened.dir.config().max_positions)?;
    let settings = json!({
        "attention": common::names(&plan.attentions),
        "tasks": plan.tasks.iter().map(|task| task.name).collect::<Vec<_>>(),
        "lengths": plan.lengths,
        "samples": plan.samples,
        "raw": sources.format.is_raw(),
        "text": common::text_metadata(&corpus),
        "questions": questions.as_ref().map(Questions::sha256),
    });
    let run = Run::open(&args.common, &opened, "ruler", plan.seed, settings)?;
    let rows = needle::answers(&opened, &plan, &sources, run)?;
    print_text(&summary::ruler(&rows))
}
