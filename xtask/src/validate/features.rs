//! Lints of every set of features, not of the default one alone.
//!
//! CUDA's code is checked without a toolkit, a driver and LLVM: nothing is linked, and under
//! `DOCS_RS` the build script that looks for LLVM has nothing to do. It has a target folder of its
//! own, so that a real CUDA build beside it stays as it is.

use std::process::Command;

use anyhow::Result;

use crate::layout::Layout;
use crate::{cargo, cuda, run};

use super::packages::LIBRARIES;

/// A name, and the arguments that select packages and features.
type Set = (&'static str, &'static [&'static str]);

const SETS: [Set; 2] = [
    ("default features", &["--workspace", "--all-targets"]),
    (
        "GPU without CPU",
        &[
            "--package=sparse-accelerate-cli",
            "--no-default-features",
            "--features=wgpu",
        ],
    ),
];
/// Checked apart, see above.
const CUDA: Set = (
    "CUDA",
    &[
        "--package=sparse-accelerate-cli",
        "--package=sparse-accelerate-tests",
        "--package=sparse-accelerate-layers",
        "--package=sparse-accelerate-bench-kernels",
        "--all-targets",
        "--features=sparse-accelerate-cli/cuda,sparse-accelerate-tests/cuda,\
         sparse-accelerate-layers/cuda,sparse-accelerate-bench-kernels/cuda",
    ],
);

/// Runs clippy on each set; any warning fails.
pub(crate) fn check(layout: &Layout) -> Result<()> {
    for (name, selection) in SETS {
        run::succeed(&mut clippy(layout, name, selection))?;
    }
    let mut bare = vec!["--lib", "--no-default-features"];
    bare.extend(LIBRARIES.iter().flat_map(|name| ["--package", name]));
    run::succeed(&mut clippy(layout, "libraries without features", &bare))?;
    let mut command = clippy(layout, CUDA.0, CUDA.1);
    command
        .env("CARGO_TARGET_DIR", cargo::target_dir(layout)?.join("lints"))
        .env("DOCS_RS", "1")
        .env(cuda::CUDA_VERSION_ENV, cuda::CUDA_VERSION);
    run::succeed(&mut command)
}

fn clippy(layout: &Layout, name: &str, selection: &[&str]) -> Command {
    println!("   {name}");
    let mut command = cargo::cargo(layout);
    command
        .arg("clippy")
        .args(selection)
        .args(["--", "-D", "warnings"]);
    command
}
