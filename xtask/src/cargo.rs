//! Cargo as a child process: the same cargo that started us, in the repository root.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::layout::Layout;
use crate::run;

/// Binary of the command-line program.
const CLI_BINARY: &str = "sparse-accelerate";

/// `cargo`, in the repository root, without the variables our own `cargo run` put around us.
pub(crate) fn cargo(layout: &Layout) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(&layout.root);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_") {
            command.env_remove(name);
        }
    }
    command.env_remove("CARGO_MANIFEST_DIR");
    command.env_remove("CARGO_MANIFEST_PATH");
    command
}

/// A build that holds the command-line program. Both put it in the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Build {
    /// The program alone, with the CPU backend alone: two thirds of the crates and none of the
    /// slowest. It shares all but Burn's and our own crates with [`Build::Workspace`].
    Cpu,
    /// All members and backends, as the tests have them.
    Workspace,
}

impl Build {
    /// Arguments of cargo, after `build` or `tree`.
    pub(crate) const fn selection(self) -> &'static [&'static str] {
        match self {
            // The second package brings the features that common dependencies have elsewhere.
            Self::Cpu => &[
                "--package=sparse-accelerate-cli",
                "--package=xtask-features",
                "--no-default-features",
                "--features=sparse-accelerate-cli/flex",
            ],
            Self::Workspace => &["--workspace"],
        }
    }
}

/// Builds the command-line program and says where it is.
pub(crate) fn cli(layout: &Layout, build: Build) -> Result<PathBuf> {
    let mut command = cargo(layout);
    command.args(["build", "--bins"]).args(build.selection());
    run::succeed(&mut command)?;
    binary(layout, CLI_BINARY)
}

/// Path of a program that a build of the `dev` profile makes.
pub(crate) fn binary(layout: &Layout, name: &str) -> Result<PathBuf> {
    let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    Ok(target_dir(layout)?.join("debug").join(file))
}

/// `cargo metadata` of the members alone, which needs no network and no lock.
pub(crate) fn metadata(layout: &Layout) -> Result<Value> {
    let mut command = cargo(layout);
    command.args(["metadata", "--no-deps", "--format-version", "1"]);
    serde_json::from_str(&run::read(&mut command)?)
        .with_context(|| format!("`{}` did not print JSON", run::line(&command)))
}

/// The folder cargo builds into.
pub(crate) fn target_dir(layout: &Layout) -> Result<PathBuf> {
    let metadata = metadata(layout)?;
    let folder = metadata["target_directory"]
        .as_str()
        .context("`cargo metadata` gave no target_directory")?;
    Ok(PathBuf::from(folder))
}
