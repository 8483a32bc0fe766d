//! Lints of every set of features, not of the default one alone.
//!
//! CUDA's code is checked without a toolkit, a driver and LLVM: nothing is linked, and under
//! `DOCS_RS` the build script that looks for LLVM has nothing to do. It has a target folder of its
//! own, so that a real CUDA build beside it stays as it is.

use anyhow::Result;

use crate::layout::Layout;
use crate::{cargo, cuda, run};

/// A name, and the arguments that select packages and features.
type Set = (&'static str, &'static [&'static str]);

const SETS: [Set; 3] = [
    ("default features", &["--workspace", "--all-targets"]),
    (
        "libraries without features",
        &[
            "--package=sparse-accelerate-contract",
            "--package=sparse-accelerate-cpu",
            "--package=sparse-accelerate-kernels",
            "--package=sparse-accelerate",
            "--package=sparse-accelerate-layers",
            "--package=sparse-accelerate-baselines",
            "--package=sparse-accelerate-checkpoint",
            "--package=sparse-accelerate-models",
            "--package=sparse-accelerate-engine",
            "--package=sparse-accelerate-eval",
            "--lib",
            "--no-default-features",
        ],
    ),
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
    for set in SETS {
        run::succeed(&mut clippy(layout, set))?;
    }
    let mut command = clippy(layout, CUDA);
    command
        .env("CARGO_TARGET_DIR", cargo::target_dir(layout)?.join("lints"))
        .env("DOCS_RS", "1")
        .env(cuda::CUDA_VERSION_ENV, cuda::CUDA_VERSION);
    run::succeed(&mut command)
}

fn clippy(layout: &Layout, (name, selection): Set) -> std::process::Command {
    println!("   {name}");
    let mut command = cargo::cargo(layout);
    command
        .arg("clippy")
        .args(selection)
        .args(["--", "-D", "warnings"]);
    command
}
