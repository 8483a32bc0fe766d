//! `cargo xtask ptx`: what every CUDA kernel takes, found without a GPU and compared with a table.
//!
//! The check itself is the program in `tests/ptx`; here its toolkit is brought and it is started.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Result, bail};

use crate::layout::Layout;
use crate::setup::{self, cuda_tools};
use crate::{cargo, run};

const PACKAGE: &str = "sparse-accelerate-ptx-check";

/// Arguments of `cargo xtask ptx`.
#[derive(Debug, clap::Args)]
pub(crate) struct PtxArgs {
    /// Write the tables of kernels and of plans, or with --only the rows of these cases
    #[arg(long)]
    write: bool,
    /// Keep every kernel's CUDA C++, PTX and assembler output in this folder
    #[arg(long, value_name = "DIR")]
    dump: Option<PathBuf>,
    /// Only cases whose `device/case` contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// Brings the toolkit, builds the check, runs it; its exit code is ours.
pub(crate) fn run(layout: &Layout, args: &PtxArgs) -> Result<ExitCode> {
    if !cuda_tools::SUPPORTED {
        bail!("{}", cuda_tools::UNSUPPORTED);
    }
    {
        let _lock = setup::lock(layout)?;
        setup::settle(layout, &cuda_tools::CudaTools)?;
    }
    // Alone, so that whoever works on a kernel does not wait for the rest of the workspace.
    run::succeed(cargo::cargo(layout).args(["build", "--package", PACKAGE]))?;
    let mut command = command(layout, &cargo::binary(layout, PACKAGE)?);
    command.arg("--rows");
    if args.write {
        command.arg("--write");
    }
    if let Some(folder) = &args.dump {
        command.arg("--dump").arg(std::path::absolute(folder)?);
    }
    if let Some(text) = &args.only {
        command.arg("--only").arg(text);
    }
    Ok(crate::test::exit_code(run::status(&mut command)?))
}

/// Runs the check that the tests' build has made, where its toolkit exists; else says why not.
pub(crate) fn after_tests(layout: &Layout) -> Result<Option<ExitStatus>> {
    if !cuda_tools::SUPPORTED {
        println!("ptx check: skipped: {}", cuda_tools::UNSUPPORTED);
        return Ok(None);
    }
    let mut command = command(layout, &cargo::binary(layout, PACKAGE)?);
    run::status(&mut command).map(Some)
}

fn command(layout: &Layout, program: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("--toolkit").arg(cuda_tools::home(layout));
    command
}
