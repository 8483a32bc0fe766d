//! `eval perplexity`: how well the end of long windows is predicted.

use anyhow::Result;
use clap::Args;
use serde_json::json;
use sparse_accelerate_eval::{PerplexityPlan, run_perplexity};

use super::{
    common::{self, CommonArgs, ComparedArgs, Run, TextArgs},
    summary,
};
use crate::{load::Opened, output::print_text};

const HELP: &str = "\
Windows of --lengths tokens, evenly over the text, without a chat template; the last --scored tokens of
each are predicted from everything before them that the attention lets them see.

The attention rules every row, the scored ones too: a pattern's dense last rows (last=N) are switched
off, since they are meant for a question at the end of a prompt. --keep-last leaves them on; with N at
least --scored this is a sparse prompt with dense answers, as in `run`, where decoding is dense.

Score: perplexity, lower is better; bits per byte of UTF-8 compares models with other tokenizers; `loss vs
dense` is how much the loss rises. `divergence` is that of the distribution of every scored token from
dense's (Kullback-Leibler, nats), `same first` how often both name the same token first: a loss can stay
while every answer changes, so compare attentions by the divergence. Language modelling needs little far
context: a pattern may be fine here and still lose facts, which `eval needle` and `eval ruler` show.

Examples:
  sparse-accelerate eval perplexity --model DIR --text book.txt
  sparse-accelerate eval perplexity --model DIR --text book.txt --lengths 8k,32k --samples 8 \\
      --attention dense,triangular:window=512,triangular:window=2048";

/// Arguments of `eval perplexity`.
#[derive(Debug, Args)]
#[command(
    after_help = HELP,
    mut_arg("lengths", |arg| arg.help("Tokens of a window; k is 1024")),
    mut_arg("samples", |arg| arg.default_value("4").help("Windows of each length"))
)]
pub(crate) struct PerplexityArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    text: TextArgs,
    #[command(flatten)]
    compared: ComparedArgs,

    /// Tokens scored at the end of a window [default: a quarter of it, 512 at most]
    #[arg(long, value_name = "N", help_heading = "Prompts")]
    scored: Option<usize>,

    /// Keep a pattern's dense last rows
    #[arg(long, help_heading = "Prompts")]
    keep_last: bool,
}

/// Runs the command.
pub(crate) fn run(args: &PerplexityArgs) -> Result<()> {
    let plan = PerplexityPlan {
        attentions: args.compared.attentions()?,
        lengths: args.compared.lengths()?,
        scored: args.scored,
        keep_last: args.keep_last,
        samples: args.compared.samples,
    };
    let opened = Opened::on_one_device(&args.common.model)?;
    let corpus = args.text.corpus(opened.dir.tokenizer())?;
    plan.check(&corpus, opened.dir.config().max_positions)?;
    let settings = json!({
        "attention": common::names(&plan.attentions),
        "lengths": plan.lengths,
        "scored": plan.lengths.iter().map(|length| plan.scored_of(*length)).collect::<Vec<_>>(),
        "keep_last": plan.keep_last,
        "samples": plan.samples,
        "text": common::text_metadata(&corpus),
    });
    let run = Run::open(&args.common, &opened, "perplexity", 0, settings)?;
    let longest = plan.lengths.iter().copied().max().unwrap_or(0);
    let rows = common::measure(
        &opened,
        longest,
        &plan.attentions,
        run,
        |subject, file, finished, progress| {
            run_perplexity(subject, &plan, &corpus, file, finished, progress)
        },
    )?;
    print_text(&summary::perplexity(&rows))
}
