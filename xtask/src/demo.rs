//! `cargo xtask demo`: one command from a fresh clone to an answer from a real model.
//!
//! Needs no GPU and no Vulkan: the model is small enough for the CPU backend, and the program is
//! built for that alone unless a device is named.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::cargo::{self, Build};
use crate::layout::Layout;
use crate::run;
use crate::setup::{self, model};

/// Arguments of `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// Handed on to `sparse-accelerate demo`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Sets up the model and runs the demo; the demo's exit code is ours.
pub(crate) fn run(layout: &Layout, args: &DemoArgs) -> Result<ExitCode> {
    let build = build(&args.args);
    {
        let _lock = setup::lock(layout)?;
        setup::settle(layout, &model::DemoGguf)?;
        setup::settle(layout, &model::DemoModel(build))?;
    }
    let mut command = Command::new(cargo::cli(layout, build)?);
    command
        .arg("demo")
        .arg("--model")
        .arg(model::directory(layout))
        .args(&args.args);
    run::headless(&mut command);
    let status = run::status(&mut command)?;
    Ok(crate::test::exit_code(status))
}

/// Every backend for whoever names a device other than `flex`, else the CPU alone.
fn build(args: &[OsString]) -> Build {
    let mut words = args.iter().map(|arg| arg.to_string_lossy());
    while let Some(word) = words.next() {
        let (flag, value) = match word.split_once('=') {
            Some((flag, value)) => (flag, Some(value.to_owned())),
            None => (&*word, None),
        };
        if flag == "--device" || flag == "--devices" {
            let value = value.or_else(|| Some(words.next()?.into_owned()));
            return match value.as_deref() {
                Some("flex") => Build::Cpu,
                _ => Build::Workspace,
            };
        }
    }
    Build::Cpu
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_device_needs_its_backend() {
        let build = |args: &[&str]| build(&args.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(build(&[]), Build::Cpu);
        assert_eq!(build(&["--tokens", "800"]), Build::Cpu);
        assert_eq!(build(&["--device", "flex"]), Build::Cpu);
        assert_eq!(build(&["--device", "wgpu", "--json"]), Build::Workspace);
        assert_eq!(
            build(&["--json", "--devices=wgpu,wgpu:1"]),
            Build::Workspace
        );
        assert_eq!(build(&["--device"]), Build::Workspace);
    }
}
