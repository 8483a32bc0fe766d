//! `cargo xtask cuda`: cargo with the environment of a CUDA build.
//!
//! The CUDA backend links LLVM, whose build script downloads an archive unless it finds one in the
//! user's data folder. Where `cargo xtask setup --cuda` has put one under our data folder, the
//! build is pointed at it. CUDA builds go to a `cuda` folder inside the target folder, because
//! another set of features in the same folder would rebuild nearly everything each way.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::layout::Layout;
use crate::setup::llvm;
use crate::{cargo, run};

/// CUDA 12.8: the oldest the bindings' event timers exist in; newer drivers run it too.
pub(crate) const CUDA_VERSION: &str = "12080";
pub(crate) const CUDA_VERSION_ENV: &str = "CUDARC_CUDA_VERSION";

/// Arguments of `cargo xtask cuda`.
#[derive(Debug, clap::Args)]
pub(crate) struct CudaArgs {
    /// Arguments of cargo, such as `build --release -p sparse-accelerate-cli --features cuda`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    args: Vec<OsString>,
}

/// Runs cargo with that environment; cargo's exit code is ours.
pub(crate) fn run(layout: &Layout, args: &CudaArgs) -> Result<ExitCode> {
    let mut command = cargo::cargo(layout);
    command.args(&args.args);
    for (name, value) in environment(layout)? {
        eprintln!("{name}={}", value.display());
        command.env(name, value);
    }
    spawn(command)
}

/// The variables a CUDA build needs here; what the user has set already stays.
pub(crate) fn environment(layout: &Layout) -> Result<Vec<(&'static str, PathBuf)>> {
    let mut variables = vec![("CARGO_TARGET_DIR", cargo::target_dir(layout)?.join("cuda"))];
    if std::env::var_os(CUDA_VERSION_ENV).is_none() {
        variables.push((CUDA_VERSION_ENV, PathBuf::from(CUDA_VERSION)));
    }
    if llvm::installed(&llvm::home(layout)) {
        variables.push(("XDG_DATA_HOME", llvm::home(layout)));
    } else if !llvm::users_own() {
        eprintln!(
            "note: no LLVM found; the build will try to download one. \
             `cargo xtask setup --cuda` brings it as a Python package instead (Linux x86-64)."
        );
    }
    Ok(variables)
}

fn spawn(mut command: Command) -> Result<ExitCode> {
    let status = run::status(&mut command)?;
    Ok(crate::test::exit_code(status))
}
