//! `eval`: what sparse attention keeps of a model's answers.
//!
//! Four measures, one way: refuse what can be refused before weights are read, open the run file, load
//! the model, run what the file lacks, print the table of the whole file. Rows are in the file as soon
//! as they are finished, so an interruption of any kind costs the row in hand.

pub(crate) mod common;
mod fidelity;
mod needle;
mod perplexity;
mod progress;
mod ruler;
mod summary;
pub(crate) mod table;

use anyhow::Result;
use clap::{Args, Subcommand};
use sparse_accelerate::{AttentionSettings, Parameter, Pattern, Selection};
use sparse_accelerate_engine::attention::baselines;

const EXAMPLES: &str = "\
Examples:
  sparse-accelerate eval needle --model DIR --lengths 2k,4k,8k
  sparse-accelerate eval ruler --model DIR --text book.txt --lengths 4k,16k,32k --tasks vt,niah_multikey_1
  sparse-accelerate eval perplexity --model DIR --text book.txt --attention dense,triangular:window=512
  sparse-accelerate eval fidelity --model DIR --file prompt.txt --attention sparse,balanced";

const RESUMED: &str = "\
Every finished row is written to --out at once. Interrupt as you like: the same command goes on where
it stopped, and refuses a file of another run.";

/// The names of attentions with their parameters and defaults, from the library's own lists.
fn attentions_help() -> String {
    let forms = |parameters: &[Parameter]| {
        let form = |parameter: &Parameter| format!("{}={}", parameter.name, parameter.form);
        parameters.iter().map(form).collect::<Vec<_>>().join(" ")
    };
    let from = AttentionSettings::default().min_sparse_len;
    let mut lines = vec![
        ("dense", "every key (exact is the same)".to_owned()),
        (
            "auto",
            format!("the default of a run: sparse from {from} tokens on"),
        ),
        (
            "sparse",
            "the default pattern, whatever the length".to_owned(),
        ),
        (
            "safe balanced fast paper",
            "the presets, whatever the length; parameters as of group-blocks, paper's of dynamic"
                .to_owned(),
        ),
    ];
    let patterns = Pattern::named();
    for pattern in patterns
        .iter()
        .filter(|pattern| **pattern != Pattern::Dense)
    {
        lines.push((pattern.name(), forms(pattern.parameters())));
    }
    lines.push((
        "heads:file=FILE.json",
        "a pattern for every head, as `search` writes it".to_owned(),
    ));
    lines.push((
        "baseline:NAME",
        "a published selector, for comparison; see below".to_owned(),
    ));
    let lines: Vec<String> = lines
        .iter()
        .map(|(name, text)| format!("  {name:<27} {text}"))
        .collect();
    format!(
        "Attentions, separated by commas, are names with parameters after colons:\n{}\ngroup-blocks takes\n  {}\n\
         heads, and the other patterns that choose from the input also take\n  {}\nfor example \
         dense,balanced,balanced:error=0.05,interval-slash:columns=2048:correction=none\n\n{}",
        lines.join("\n"),
        forms(&Selection::GROUP_PARAMETERS),
        forms(&Selection::PARAMETERS),
        baselines_help()
    )
}

/// The published selectors with their defaults, for the end of a command's help.
pub(crate) fn baselines_help() -> String {
    let lines: Vec<String> = baselines()
        .iter()
        .map(|text| format!("  baseline:{text}"))
        .collect();
    format!(
        "Published selectors with their parameters, which may be left out:\n{}\nThey choose for every chunk of at \
         least 128 tokens from its queries and all keys so far, so --chunk must be a multiple of 64; decoding is \
         dense, as published.",
        lines.join("\n")
    )
}

/// Arguments of `eval`.
#[derive(Debug, Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{}\n\n{RESUMED}", attentions_help()))]
pub(crate) struct EvalArgs {
    #[command(subcommand)]
    command: EvalCommand,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant)] // one value a process
enum EvalCommand {
    /// Facts hidden in your text, over lengths and depths: are they found?
    Needle(needle::NeedleArgs),
    /// RULER's tasks: retrieval, tracking, counting, questions
    Ruler(ruler::RulerArgs),
    /// How well the end of long windows of your text is predicted
    Perplexity(perplexity::PerplexityArgs),
    /// Compare sparse with dense on your own prompt: next token, hidden state, attention of every head
    Fidelity(fidelity::FidelityArgs),
}

/// Runs the command.
pub(crate) fn run(args: &EvalArgs) -> Result<()> {
    match &args.command {
        EvalCommand::Needle(args) => needle::run(args),
        EvalCommand::Ruler(args) => ruler::run(args),
        EvalCommand::Perplexity(args) => perplexity::run(args),
        EvalCommand::Fidelity(args) => fidelity::run(args),
    }
}
