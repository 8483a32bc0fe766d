//! `cargo xtask validate`: what a change must pass besides its tests.
//!
//! Every check runs, whatever the others said; the summary comes last. Cheap ones come first.

mod arrows;
mod features;
mod functions;
mod lengths;
mod packages;
mod paths;
mod shared;
mod words;

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::layout::Layout;
use crate::{cargo, results, run};

type Check = (&'static str, fn(&Layout) -> Result<()>);

const CHECKS: [Check; 12] = [
    ("format", format),
    ("file lengths", lengths::check),
    ("function lengths", functions::check),
    ("words of docs", words::check),
    ("crate edges", arrows::check),
    ("shared builds", shared::check),
    ("machine paths", paths::check),
    ("results page", results::check),
    ("licences", deny),
    ("packages", packages::check),
    ("lints", features::check),
    ("docs", docs),
];

/// Arguments of `cargo xtask validate`.
#[derive(Debug, clap::Args)]
pub(crate) struct ValidateArgs {
    /// Checks whose names contain one of these, such as `lints`, instead of all
    checks: Vec<String>,
}

/// Runs the checks and lists those that failed.
pub(crate) fn run(layout: &Layout, args: &ValidateArgs) -> Result<ExitCode> {
    let chosen: Vec<&Check> = CHECKS
        .iter()
        .filter(|(name, _)| {
            args.checks.is_empty() || args.checks.iter().any(|part| name.contains(part.as_str()))
        })
        .collect();
    if chosen.is_empty() {
        let names: Vec<&str> = CHECKS.iter().map(|(name, _)| *name).collect();
        bail!("no such check; there are: {}", names.join(", "));
    }
    let mut failed = Vec::new();
    for (name, check) in &chosen {
        println!("== {name}");
        let start = Instant::now();
        match check(layout) {
            Ok(()) => println!("   ok, {:.1} s", start.elapsed().as_secs_f64()),
            Err(error) => {
                println!("   FAILED: {error:#}");
                failed.push(*name);
            }
        }
    }
    if failed.is_empty() {
        println!("all {} checks passed", chosen.len());
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "{} of {} checks failed: {}",
        failed.len(),
        chosen.len(),
        failed.join(", ")
    );
    Ok(ExitCode::FAILURE)
}

/// The text of every `.rs` file, with its path.
pub(crate) fn sources(layout: &Layout) -> Result<Vec<(String, String)>> {
    files(layout)?
        .into_iter()
        .filter(|name| name.ends_with(".rs"))
        .map(|name| {
            let text = std::fs::read_to_string(layout.root.join(&name))
                .with_context(|| format!("cannot read {name}"))?;
            Ok((name, text))
        })
        .collect()
}

/// Files that git has or would take: tracked, and new ones that are not ignored.
pub(crate) fn files(layout: &Layout) -> Result<Vec<String>> {
    let mut git = Command::new("git");
    git.current_dir(&layout.root).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "-z",
    ]);
    let mut files: Vec<String> = run::read(&mut git)?
        .split_terminator('\0')
        // Deleted but not yet staged.
        .filter(|name| layout.root.join(name).is_file())
        .map(str::to_owned)
        .collect();
    files.sort();
    files.dedup();
    Ok(files)
}

fn format(layout: &Layout) -> Result<()> {
    run::succeed(cargo::cargo(layout).args(["fmt", "--all", "--check", "--", "--files-with-diff"]))
        .map_err(|error| error.context("run `cargo fmt --all`"))
}

fn docs(layout: &Layout) -> Result<()> {
    run::succeed(
        cargo::cargo(layout)
            .args(["doc", "--workspace", "--no-deps"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )
}

fn deny(layout: &Layout) -> Result<()> {
    if !run::works("cargo-deny", &["--version"]) {
        println!("   not run: cargo-deny is not installed (`cargo install cargo-deny`)");
        return Ok(());
    }
    let status = run::status(cargo::cargo(layout).args(["deny", "check"]))?;
    if !status.success() {
        bail!("`cargo deny check` failed; what is allowed stands in deny.toml");
    }
    Ok(())
}
