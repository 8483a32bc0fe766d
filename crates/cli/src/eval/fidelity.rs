//! `eval fidelity`: what sparse attention changes on the user's own prompt.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use sparse_accelerate_eval::{EvalError, FidelityPlan, Format, Prompts, run_fidelity, text_hash};

use super::{
    common::{self, CommonArgs, ComparedArgs, Run, TextArgs},
    summary,
};
use crate::{exit::usage, load::Opened, output::print_text};

const HELP: &str = "\
No answers are needed: the dense pass is the reference. With --file the prompt is that file, as one user
message of the model's chat template (--raw: as it is). Otherwise prompts are slices of --text of
--lengths tokens, without a template.

  KL           divergence of the next token's distribution from dense, nats; 0 is the same
  top-1        how often both think the same token most likely
  hidden       relative L2 error of the last hidden state
  recall       attention mass kept: exp(LSE sparse - LSE dense), mean over layers, heads and --rows rows,
               on the queries and the cache of the dense pass; 1 is everything
  worst head   the layer and head with the least mean recall
  head error   relative L2 error of a head's output, mean over layers and heads

Where heads choose their keys, whole chunks of the dense pass are run; recall is then what the heads measured
on their own probe rows, and rows of heads also have the choice, the recall that was predicted, the head's
own density, and lse_error, the mean of |LSE - LSE dense|. A plot shows the choices. A baseline chooses for
whole chunks too, its choice is `index`, and its recall is that of the --rows rows.

The run file holds a row for every layer and head. dense may be given as an attention: its rows must be
exactly 1 and 0, which checks the measure itself.

Examples:
  sparse-accelerate eval fidelity --model DIR --file prompt.txt
  sparse-accelerate eval fidelity --model DIR --text book.txt --lengths 8k,32k --samples 4 \\
      --attention triangular:window=1024,balanced,fast:correction=none";

/// Arguments of `eval fidelity`.
#[derive(Debug, Args)]
#[command(
    after_help = HELP,
    mut_arg("attention", |arg| arg.default_value("sparse").help("Attentions to compare with dense, separated by commas")),
    mut_arg("lengths", |arg| arg.help("Tokens of a slice; k is 1024")),
    mut_arg("samples", |arg| arg.default_value("2").help("Slices of each length"))
)]
pub(crate) struct FidelityArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    text: TextArgs,
    #[command(flatten)]
    compared: ComparedArgs,

    /// One prompt, from a file (UTF-8), instead of slices of a text
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["text", "lengths", "samples"],
        help_heading = "Prompts"
    )]
    file: Option<PathBuf>,

    /// Do not use the model's chat template for --file
    #[arg(long, requires = "file", help_heading = "Prompts")]
    raw: bool,

    /// Rows of a prompt whose attention is looked at: evenly spread, and the last four
    #[arg(long, value_name = "N", default_value_t = 32, help_heading = "Prompts")]
    rows: usize,
}

/// Runs the command.
pub(crate) fn run(args: &FidelityArgs) -> Result<()> {
    let plan = FidelityPlan {
        attentions: args.compared.attentions()?,
        rows: args.rows,
    };
    if plan.rows == 0 {
        return Err(usage("--rows is 0, but must be at least 1"));
    }
    let lengths = args.compared.lengths()?;
    let opened = Opened::on_one_device(&args.common.model)?;
    let limit = opened.dir.config().max_positions;
    let attention = common::names(&plan.attentions);
    let run = |prompts: &Prompts<'_>, prompt: serde_json::Value, longest: usize| -> Result<()> {
        prompts.check(limit)?;
        let settings = json!({
            "attention": attention, "rows": plan.rows, "prompts": prompt,
        });
        let run = Run::open(&args.common, &opened, "fidelity", 0, settings)?;
        let rows = common::measure(
            &opened,
            longest,
            &plan.attentions,
            run,
            |subject, file, finished, progress| {
                run_fidelity(subject, &plan, prompts, file, finished, progress)
            },
        )?;
        print_text(&summary::fidelity(&rows))
    };
    if let Some(path) = &args.file {
        let text = std::fs::read_to_string(path).map_err(|source| EvalError::Read {
            path: path.clone(),
            source,
        })?;
        if text.trim().is_empty() {
            return Err(usage(format!("--file {}: is empty", path.display())));
        }
        let format = Format::new(&opened.dir, args.raw);
        let ids = format.message(&text)?;
        let settings = json!({"file": text_hash(&text), "raw": format.is_raw()});
        return run(&Prompts::One(&ids), settings, ids.len());
    }
    let corpus = args.text.corpus(opened.dir.tokenizer())?;
    let prompts = Prompts::Slices {
        corpus: &corpus,
        lengths: &lengths,
        samples: args.compared.samples,
    };
    let settings = json!({
        "lengths": lengths, "samples": args.compared.samples, "text": common::text_metadata(&corpus),
    });
    run(&prompts, settings, lengths.last().copied().unwrap_or(0))
}
