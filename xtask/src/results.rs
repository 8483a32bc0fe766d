//! `cargo xtask results`: the results page from the run files that are checked in.
//!
//! `crates/report` makes the page, so that a figure in it is a figure of a run. It is built alone: it
//! needs no Burn.

use std::process::Command;

use anyhow::Result;

use crate::layout::Layout;
use crate::{cargo, run};

/// Arguments of `cargo xtask results`.
#[derive(Debug, clap::Args)]
pub(crate) struct ResultsArgs {
    /// Write nothing; fail when the page is not what the runs give
    #[arg(long)]
    check: bool,
}

/// Writes or checks `benches/RESULTS.md`.
pub(crate) fn run(layout: &Layout, args: &ResultsArgs) -> Result<()> {
    run::succeed(&mut command(layout, args.check))
}

/// The check of `cargo xtask validate`.
pub(crate) fn check(layout: &Layout) -> Result<()> {
    run::succeed(&mut command(layout, true))
}

fn command(layout: &Layout, check: bool) -> Command {
    let mut command = cargo::cargo(layout);
    command.args(["run", "--quiet", "--package", "sparse-accelerate-report"]);
    command.args(["--example", "results", "--"]);
    if check {
        command.arg("--check");
    }
    command.args(["benches/runs", "benches/RESULTS.md"]);
    command
}
