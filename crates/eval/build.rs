//! Hands the commit that the program is built from to its sources, as `SPARSE_ACCELERATE_COMMIT`.
//!
//! An environment variable of that name goes first, for builds away from the repository. Without both
//! it is not set, and run files say that they do not know.

use std::process::Command;

const NAME: &str = "SPARSE_ACCELERATE_COMMIT";
/// Sources of the program, from this folder.
const SOURCES: [&str; 5] = [
    "../",
    "../../kernels-cubecl",
    "../../models",
    "../../Cargo.toml",
    "../../Cargo.lock",
];

fn main() {
    println!("cargo:rerun-if-env-changed={NAME}");
    for path in SOURCES {
        println!("cargo:rerun-if-changed={path}");
    }
    // A commit changes no source.
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file]) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    let given = std::env::var(NAME).ok().filter(|commit| !commit.is_empty());
    let described = || {
        git(&[
            "describe",
            "--always",
            "--abbrev=12",
            "--dirty",
            "--exclude=*",
        ])
    };
    if let Some(commit) = given.or_else(described) {
        println!("cargo:rustc-env={NAME}={commit}");
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}
