//! `cargo xtask`: everything this repository does apart from compiling.
//!
//! | command | what it does |
//! |---|---|
//! | `setup [--check]` | brings Vulkan's software driver, CUDA's compilers, the demo model |
//! | `setup --cuda [--check]` | brings what a CUDA build needs: LLVM |
//! | `demo [-- ARGS]` | the set-up a demo needs, then `sparse-accelerate demo` |
//! | `test [--fast] [ARGS]` | the set-up tests need, then every test of the workspace, then a table |
//! | `ptx [--write] [--dump DIR] [--only TEXT]` | what CUDA kernels take, without a GPU |
//! | `results [--check]` | the results page from the run files that are checked in |
//! | `validate [CHECK..]` | format, lints of every set of features, docs and their words, lengths, edges between crates, packages, licences, stray paths, results page |
//! | `cuda CARGO-ARGS` | cargo with what a CUDA build needs in its environment |
//!
//! Commands only ever write to the data folder (`.data/`, or `SPARSE_ACCELERATE_DATA`) and to
//! cargo's target folder; `setup` and `test` may also ask `apt-get` for two packages.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cargo;
mod cuda;
mod demo;
mod layout;
mod ptx;
mod results;
mod run;
mod setup;
mod tally;
mod test;
mod validate;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::layout::Layout;

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Set-up, demo, tests and checks of this repository"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring what is missing: Vulkan software driver, CUDA compilers for the check of kernels, demo
    /// model; with `--cuda` the LLVM of a CUDA build instead
    Setup(setup::SetupArgs),
    /// Fetch the demo model if needed and run the demo on it
    Demo(demo::DemoArgs),
    /// Set up, run every test of the workspace, print a table of the results
    Test(test::TestArgs),
    /// Compile the CUDA kernels without a GPU; compare registers, spills, shared memory with a table
    Ptx(ptx::PtxArgs),
    /// Write benches/RESULTS.md from the run files in benches/runs
    Results(results::ResultsArgs),
    /// Format, lints, docs, lengths, edges between crates, packages, licences, and more
    Validate(validate::ValidateArgs),
    /// Run cargo with the environment of a CUDA build: `cargo xtask cuda build --features cuda`
    Cuda(cuda::CudaArgs),
}

fn main() -> ExitCode {
    let done = Layout::find().and_then(|layout| match Cli::parse().command {
        Command::Setup(args) => setup::run(&layout, &args),
        Command::Demo(args) => demo::run(&layout, &args),
        Command::Test(args) => test::run(&layout, &args),
        Command::Ptx(args) => ptx::run(&layout, &args),
        Command::Results(args) => results::run(&layout, &args).map(|()| ExitCode::SUCCESS),
        Command::Validate(args) => validate::run(&layout, &args),
        Command::Cuda(args) => cuda::run(&layout, &args),
    });
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
