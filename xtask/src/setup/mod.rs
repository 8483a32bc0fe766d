//! Set-up as a list of steps, each with a check that costs next to nothing.
//!
//! A step is ready, missing, or left to the user (another system, no rights). `settle` runs a step
//! only when its check says missing, so a second run changes nothing. Whatever a step makes appears
//! under its final name in one rename, after its checksum was right; what an interrupted run left
//! behind is called `*.partial` and goes when the step starts again.

pub(crate) mod cuda_tools;
mod digest;
pub(crate) mod llvm;
pub(crate) mod model;
mod pip;
mod space;
pub(crate) mod vulkan;

use std::fs::File;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::cargo::Build;
use crate::layout::Layout;

/// Arguments of `cargo xtask setup`.
#[derive(Debug, clap::Args)]
pub(crate) struct SetupArgs {
    /// Bring what a CUDA build needs, and nothing else: the LLVM it links (Linux x86-64, 92 MB)
    #[arg(long)]
    cuda: bool,
    /// Only say what is there and what is missing; exit code 1 if anything is
    #[arg(long)]
    check: bool,
}

/// State of a step, before or after it ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing to do; the text says what was found.
    Ready(String),
    /// Can be brought; the text says what is not there.
    Missing(String),
    /// Cannot be brought from here; the text says what to type.
    ByHand(String),
}

/// One thing the repository needs.
pub(crate) trait Step {
    /// Two or three words for the left column.
    fn name(&self) -> &'static str;
    /// Looks, changes nothing, and is fast: names and sizes, no checksums.
    fn state(&self, layout: &Layout) -> Result<State>;
    /// Brings what is missing. Called only after `state` said [`State::Missing`].
    fn bring(&self, layout: &Layout) -> Result<State>;
}

/// Checks a step, brings it if missing, and prints one line either way.
pub(crate) fn settle(layout: &Layout, step: &dyn Step) -> Result<State> {
    let name = step.name();
    let mut state = step.state(layout)?;
    if let State::Missing(what) = &state {
        println!("{name:<14} missing: {what}");
        state = step
            .bring(layout)
            .with_context(|| format!("set-up of {name}"))?;
    }
    print(name, &state);
    Ok(state)
}

/// One set-up at a time: a second one waits here for the first.
pub(crate) fn lock(layout: &Layout) -> Result<File> {
    make_dir(&layout.data)?;
    let path = layout.data.join("setup.lock");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    if file.try_lock().is_err() {
        println!("waiting for another set-up to finish");
        file.lock()
            .with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}

/// Makes a folder and those above it.
pub(crate) fn make_dir(path: &std::path::Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))
}

/// `cargo xtask setup`.
pub(crate) fn run(layout: &Layout, args: &SetupArgs) -> Result<ExitCode> {
    // A CUDA build needs nothing of the demo, and the demo no LLVM.
    let steps: &[&dyn Step] = if args.cuda {
        &[&llvm::Llvm]
    } else {
        &[
            &vulkan::Vulkan,
            &cuda_tools::CudaTools,
            &model::DemoGguf,
            &model::DemoModel(Build::Cpu),
        ]
    };
    if args.check {
        return check(layout, steps);
    }
    let _lock = lock(layout)?;
    let mut failed = false;
    for step in steps {
        if let Err(error) = settle(layout, *step) {
            failed = true;
            eprintln!("{:<14} error: {error:#}", step.name());
            // The conversion, which comes last, needs the download; everything else stands alone.
            if step.name() == model::DemoGguf.name() {
                eprintln!("{:<14} left out: it needs {}", "demo model", step.name());
                break;
            }
        }
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn check(layout: &Layout, steps: &[&dyn Step]) -> Result<ExitCode> {
    let mut complete = true;
    for step in steps {
        let state = step.state(layout)?;
        complete &= matches!(state, State::Ready(_));
        print(step.name(), &state);
    }
    Ok(if complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn print(name: &str, state: &State) {
    match state {
        State::Ready(what) => println!("{name:<14} ready: {what}"),
        State::Missing(what) => println!("{name:<14} missing: {what}"),
        State::ByHand(what) => println!("{name:<14} by hand: {what}"),
    }
}
