//! `cargo xtask demo`: one command from a fresh clone to an answer from a real model.
//!
//! Needs no GPU and no Vulkan: the model is small enough for the CPU backend.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::layout::Layout;
use crate::setup::{self, model};
use crate::{cargo, run};

/// Arguments of `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// Handed on to `sparse-accelerate demo`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Sets up the model and runs the demo; the demo's exit code is ours.
pub(crate) fn run(layout: &Layout, args: &DemoArgs) -> Result<ExitCode> {
    {
        let _lock = setup::lock(layout)?;
        setup::settle(layout, &model::DemoGguf)?;
        setup::settle(layout, &model::DemoModel)?;
    }
    let mut command = Command::new(cargo::cli(layout)?);
    command
        .arg("demo")
        .arg("--model")
        .arg(model::directory(layout))
        .args(&args.args);
    let status = run::status(&mut command)?;
    Ok(crate::test::exit_code(status))
}
