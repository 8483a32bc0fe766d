//! `bench`: how long, how much memory, how far from dense.
//!
//! Rows go to standard output as a table, or as JSON lines with `--json`; with `--out` also into a run
//! file that an interrupted run goes on with. What the device cannot do is a row with the reason, and
//! the rest goes on.

mod decode;
mod frontier;
mod kernel;
mod output;
mod subject;
pub(crate) mod ttft;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

const EXAMPLES: &str = "\
Examples:
  sparse-accelerate bench ttft --model DIR --lengths 2k,8k,32k --attention triangular
  sparse-accelerate bench ttft --weights random --config benches/shapes/llama-3.1-8b.json \\
      --lengths 2k,8k,32k,128k --density 8k=0.54,32k=0.187,128k=0.046 --out ttft.jsonl
  sparse-accelerate bench decode --model DIR --lengths 2k,32k
  sparse-accelerate bench kernel --lengths 8k,32k --attention triangular:window=2048
  sparse-accelerate bench frontier --lengths 32k,128k --out frontier.jsonl
  sparse-accelerate report ttft.jsonl --out page.html       tables and plots of run files";

/// Arguments of `bench`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    command: Bench,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant)] // one value a process
enum Bench {
    /// Time to first token, memory and error against dense, by prompt length
    Ttft(ttft::TtftArgs),
    /// Tokens per second after a prompt, by its length
    Decode(decode::DecodeArgs),
    /// The attention of one layer alone, checked against f64, then timed
    Kernel(kernel::KernelArgs),
    /// Error against density and time: selections of one layer beside an oracle
    Frontier(frontier::FrontierArgs),
}

/// Runs the command.
pub(crate) fn run(args: &BenchArgs) -> Result<ExitCode> {
    match &args.command {
        Bench::Ttft(args) => ttft::run(args),
        Bench::Decode(args) => decode::run(args),
        Bench::Kernel(args) => kernel::run(args),
        Bench::Frontier(args) => frontier::run(args),
    }
}
