//! `cargo xtask validate`: what a change must pass besides its tests.
//!
//! Every check runs, whatever the others said; the summary comes last. Cheap ones come first.

mod arrows;
mod lengths;
mod paths;

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Result, bail};

use crate::layout::Layout;
use crate::{cargo, results, run};

type Check = (&'static str, fn(&Layout) -> Result<()>);

const CHECKS: [Check; 8] = [
    ("format", format),
    ("file lengths", lengths::check),
    ("crate order", arrows::check),
    ("machine paths", paths::check),
    ("results page", results::check),
    ("licences", deny),
    ("lints", lints),
    ("docs", docs),
];

/// Runs all checks and lists those that failed.
pub(crate) fn run(layout: &Layout) -> Result<ExitCode> {
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        println!("== {name}");
        let start = Instant::now();
        match check(layout) {
            Ok(()) => println!("   ok, {:.1} s", start.elapsed().as_secs_f64()),
            Err(error) => {
                println!("   FAILED: {error:#}");
                failed.push(name);
            }
        }
    }
    if failed.is_empty() {
        println!("all {} checks passed", CHECKS.len());
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "{} of {} checks failed: {}",
        failed.len(),
        CHECKS.len(),
        failed.join(", ")
    );
    Ok(ExitCode::FAILURE)
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

fn lints(layout: &Layout) -> Result<()> {
    run::succeed(cargo::cargo(layout).args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))
}

fn docs(layout: &Layout) -> Result<()> {
    // The program has the library's name, so their pages would overwrite each other.
    run::succeed(
        cargo::cargo(layout)
            .args([
                "doc",
                "--workspace",
                "--no-deps",
                "--exclude",
                "sparse-accelerate-cli",
            ])
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
