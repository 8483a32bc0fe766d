//! `cargo xtask test`: set-up, one build, every test, and a table at the end.
//!
//! Programs and tests are built in one cargo call, so that the importer that makes the demo model
//! shares every dependency with the tests. The test output goes by unchanged, cargo's own result
//! lines included. The check of CUDA kernels comes last. The exit code is cargo's, or the check's.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cargo::Build;
use crate::layout::{DATA_ENV, Layout};
use crate::setup::{self, State, Step, cuda_tools, model, vulkan};
use crate::tally::Tally;
use crate::{cargo, ptx, run};

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct TestArgs {
    /// Unit tests only, with no set-up: no model, no GPU
    #[arg(long)]
    fast: bool,
    /// Go on without a Vulkan driver; its tests report themselves skipped
    #[arg(long)]
    no_vulkan: bool,
    /// Leave out the check of CUDA kernels, and the download of its tools
    #[arg(long)]
    no_ptx: bool,
    /// Handed on to `cargo test`, such as `-p PACKAGE`, `NAME` or `-- --nocapture`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Sets up, builds, tests; the exit code is that of `cargo test`.
pub(crate) fn run(layout: &Layout, args: &TestArgs) -> Result<ExitCode> {
    let start = Instant::now();
    if !args.fast {
        set_up(layout, args)?;
    }
    let ready = start.elapsed();
    let (status, tally) = test(layout, args)?;
    let checked = match args.skips_ptx() {
        Some(why) => {
            println!("ptx check: skipped: {why}");
            None
        }
        None => ptx::after_tests(layout)?,
    };
    println!("\n{}", tally.table());
    let (passed, failed, ignored) = tally.totals();
    println!(
        "{passed} passed, {failed} failed, {ignored} ignored in {} test binaries; {} in all, {} of \
         it set-up and build",
        tally.rows.len(),
        clock(start.elapsed()),
        clock(ready)
    );
    if status.success() && passed + failed == 0 && args.args.is_empty() {
        bail!("no test ran at all; `cargo test` printed no result line");
    }
    match checked {
        Some(checked) if status.success() && !checked.success() => {
            eprintln!("error: the ptx check failed; its lines are above the table");
            Ok(exit_code(checked))
        }
        _ => Ok(exit_code(status)),
    }
}

impl TestArgs {
    /// Why the CUDA kernels are not checked; they are when everything is tested.
    fn skips_ptx(&self) -> Option<&'static str> {
        match self {
            Self { fast: true, .. } => Some("--fast"),
            Self { no_ptx: true, .. } => Some("--no-ptx"),
            Self { args, .. } if !args.is_empty() => Some("arguments for `cargo test` were given"),
            _ => None,
        }
    }
}

/// Cargo's exit code as ours; a signal counts as failure.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    match status.code().map(u8::try_from) {
        Some(Ok(code)) => ExitCode::from(code),
        _ => ExitCode::FAILURE,
    }
}

fn set_up(layout: &Layout, args: &TestArgs) -> Result<()> {
    let _lock = setup::lock(layout)?;
    if args.no_vulkan {
        println!("{:<14} left out: --no-vulkan", vulkan::Vulkan.name());
    } else if let State::ByHand(what) = setup::settle(layout, &vulkan::Vulkan)? {
        bail!(
            "the Vulkan tests need a driver: {what}. Or pass `--no-vulkan`, and they report \
             themselves skipped"
        );
    }
    setup::settle(layout, &model::DemoGguf)?;
    if args.skips_ptx().is_none() {
        setup::settle(layout, &cuda_tools::CudaTools)
            .context("`--no-ptx` tests without the check of CUDA kernels")?;
    }
    let mut build = cargo::cargo(layout);
    build.args(["build", "--workspace", "--bins", "--tests"]);
    run::succeed(&mut build)?;
    setup::settle(layout, &model::DemoModel(Build::Workspace))?;
    Ok(())
}

fn test(layout: &Layout, args: &TestArgs) -> Result<(ExitStatus, Tally)> {
    let mut command = test_command(layout, args);
    let words: Vec<_> = command
        .get_args()
        .map(|word| word.to_string_lossy())
        .collect();
    println!("$ cargo {}", words.join(" "));
    // One pipe for both streams keeps their order: names come on one, results on the other.
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let second = writer.try_clone().context("cannot copy a pipe")?;
    let mut child = command
        .stdout(writer)
        .stderr(second)
        .spawn()
        .with_context(|| format!("cannot start `{}`", run::line(&command)))?;
    // The command holds the pipe's writing ends; the reading below ends only when they are gone.
    drop(command);
    let tally = forward(BufReader::new(reader), &mut child)?;
    let status = child.wait().context("cannot wait for cargo")?;
    Ok((status, tally))
}

fn forward(mut reader: impl BufRead, child: &mut Child) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut out = std::io::stdout();
    let mut line = Vec::new();
    while reader
        .read_until(b'\n', &mut line)
        .context("cannot read the test output")?
        > 0
    {
        if let Err(error) = out.write_all(&line).and_then(|()| out.flush()) {
            // Nobody reads us any more: stop the tests rather than run them for no one.
            child.kill().ok();
            return Err(error).context("cannot write the test output");
        }
        tally.line(&String::from_utf8_lossy(&line));
        line.clear();
    }
    Ok(tally)
}

fn test_command(layout: &Layout, args: &TestArgs) -> Command {
    let mut command = cargo::cargo(layout);
    command.args(["test", "--no-fail-fast"]);
    if !names_packages(&args.args) {
        command.arg("--workspace");
    }
    if args.fast {
        command.args(["--lib", "--bins"]);
    }
    command
        .args(&args.args)
        .env(DATA_ENV, &layout.data)
        .env("CUBECL_AUTOTUNE_LEVEL", "minimal");
    if args.no_vulkan {
        command.env("SPARSE_ACCELERATE_TEST_BACKENDS", "flex");
    }
    run::headless(&mut command);
    if std::io::stdout().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    command
}

/// True if the user chose packages; then `--workspace` would undo the choice.
fn names_packages(args: &[OsString]) -> bool {
    args.iter()
        .map(|arg| arg.to_string_lossy())
        .take_while(|arg| arg != "--")
        .any(|arg| arg.starts_with("-p") || arg.starts_with("--package"))
}

/// `1 min 05 s`, or `12.3 s` below a minute.
fn clock(time: Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        seconds => format!("{} min {:02} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(fast: bool, args: &[&str]) -> String {
        let root = std::path::PathBuf::from("repo");
        let layout = Layout {
            data: root.join(".data"),
            root,
        };
        let args = TestArgs {
            fast,
            no_vulkan: false,
            no_ptx: false,
            args: args.iter().map(OsString::from).collect(),
        };
        let command = test_command(&layout, &args);
        let line = run::line(&command);
        line.split_once(' ').unwrap().1.to_owned()
    }

    #[test]
    fn one_call_for_the_whole_workspace() {
        assert_eq!(line(false, &[]), "test --no-fail-fast --workspace");
        assert_eq!(
            line(true, &["--", "--nocapture"]),
            "test --no-fail-fast --workspace --lib --bins -- --nocapture"
        );
    }

    #[test]
    fn a_chosen_package_replaces_the_workspace() {
        assert_eq!(
            line(false, &["-p", "xtask"]),
            "test --no-fail-fast -p xtask"
        );
        assert_eq!(
            line(false, &["--", "-p"]),
            "test --no-fail-fast --workspace -- -p"
        );
    }

    #[test]
    fn times_are_readable() {
        assert_eq!(clock(Duration::from_millis(12_340)), "12.3 s");
        assert_eq!(clock(Duration::from_secs(65)), "1 min 05 s");
    }
}
