//! `sparse-accelerate`: long prompts with dynamic sparse attention.
//!
//! The command line parses, calls the engine and prints. Model text and `--json` go to standard
//! output, everything else to standard error. Exit code 0 is success, 1 a failure, 2 a request that
//! should be asked differently (a wrong flag, device, pattern or prompt length).

mod args;
mod attention;
mod bench;
mod calibrate;
mod calibrate_model;
mod calibrated;
mod demo;
mod demo_report;
mod demo_spec;
mod doctor;
mod eval;
mod exit;
mod explain;
mod headless;
mod import;
mod inspect;
mod interrupt;
mod load;
mod output;
mod plan;
mod progress;
mod prompt;
mod report;
mod run;
mod run_file;
mod search;
mod summary;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Long prompts with dynamic sparse attention, on CPU and GPU.
#[derive(Debug, Parser)]
#[command(version, about, long_about = LONG_ABOUT, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const LONG_ABOUT: &str = "\
Long prompts with dynamic sparse attention, on CPU and GPU.

Reads Hugging Face model directories (Gemma 3, Llama, Mistral, Phi-3, Qwen2, Qwen3 and SmolLM3 families). Attention over a long prompt is \
computed for the keys a pattern keeps; what was decided, and why, is printed after every run.";

const EXAMPLES: &str = "\
Examples:
  sparse-accelerate doctor                                 what this machine can run
  sparse-accelerate run --model DIR \"What is a kernel?\"    a short question
  sparse-accelerate run --model DIR --file book.txt        a long prompt from a file
  sparse-accelerate demo --model DIR                       dense against sparse, side by side
  sparse-accelerate run --model DIR --file book.txt --preset fast --explain    what heads chose, and why
  sparse-accelerate eval needle --model DIR --lengths 4k   what sparse attention still finds
  sparse-accelerate bench ttft --model DIR                 times by prompt length
  sparse-accelerate calibrate                              what attention costs on this device
  sparse-accelerate plan --model DIR --devices rtx-a5000,rtx-a5000    does it fit, and how long will it take

RUST_LOG=info shows what the libraries log.";

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant)] // one value a process
enum Command {
    /// Answer a prompt, streaming the text
    Run(run::RunArgs),
    /// Show what a model directory or weight file holds
    Inspect(inspect::InspectArgs),
    /// Show devices, their features and limits, and what this build contains
    Doctor(doctor::DoctorArgs),
    /// Convert a GGUF file to a model directory
    Import(import::ImportArgs),
    /// Ask one long question dense and sparse, and compare
    Demo(demo::DemoArgs),
    /// Find a pattern for every head of a model, on your text
    Search(search::SearchArgs),
    /// Measure what sparse attention keeps of a model's answers
    Eval(eval::EvalArgs),
    /// Measure time to first token, memory, decoding, and attention alone
    Bench(bench::BenchArgs),
    /// Measure this device's prices of attention, and from which prompt length sparse is faster
    Calibrate(calibrate::CalibrateArgs),
    /// Say whether a model and a prompt fit, on which cards, and how long the prompt will take
    Plan(plan::PlanArgs),
    /// Turn run files of bench and eval into tables, plots and a page
    Report(report::ReportArgs),
}

fn main() -> ExitCode {
    headless::settle();
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match dispatch(cli.command) {
        Ok(code) => code,
        Err(error) => exit::report(&error),
    }
}

fn dispatch(command: Command) -> Result<ExitCode> {
    let done = |()| ExitCode::SUCCESS;
    match command {
        Command::Run(args) => run::run(&args).map(done),
        Command::Inspect(args) => inspect::run(&args).map(done),
        Command::Doctor(args) => doctor::run(&args).map(done),
        Command::Import(args) => import::run(&args).map(done),
        Command::Demo(args) => demo::run(&args),
        Command::Search(args) => search::run(&args).map(done),
        Command::Eval(args) => eval::run(&args).map(done),
        Command::Bench(args) => bench::run(&args),
        Command::Calibrate(args) => calibrate::run(&args).map(done),
        Command::Plan(args) => plan::run(&args).map(done),
        Command::Report(args) => report::run(&args).map(done),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
