//! Builds of a part share their dependencies with builds of the whole workspace.
//!
//! Cargo builds a crate once for every set of features, and once more for every set below it. The
//! demo builds one member; `xtask/features` gives common dependencies the features they have in the
//! workspace. Here both sets are compared, so that an update of a dependency cannot undo that.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

use crate::cargo::{self, Build};
use crate::layout::Layout;
use crate::run;

/// Crates that differ by design: with and without GPU backends.
const BY_DESIGN: [&str; 3] = ["burn", "cubecl", "sparse-accelerate"];
/// Crates that nothing but those depends on, so that nothing else is built twice.
const BELOW_THEM: [&str; 9] = [
    "byteorder",
    "bytes",
    "derive_more",
    "derive_more-impl",
    "float8",
    "futures-core",
    "hashbrown",
    "memmap2",
    "parking_lot",
];

/// Fails with the crates that the demo's build and the workspace's would each build their own of.
pub(crate) fn check(layout: &Layout) -> Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        println!("   not run: the features are those of Linux x86-64");
        return Ok(());
    }
    let workspace = crates(layout, Build::Workspace.selection(), "normal,build,dev")?;
    for (what, selection) in [
        ("demo", Build::Cpu.selection()),
        ("xtask", &["--package=xtask"]),
    ] {
        let part = crates(layout, selection, "normal,build")?;
        let own = own(&part, &workspace);
        if !own.is_empty() {
            bail!(
                "the build of {what} has crates with other features than the workspace's; name the \
                 workspace's in xtask/features/Cargo.toml: {}",
                own.join(", ")
            );
        }
        println!(
            "   {what}: {} of {} crates as in the workspace",
            part.intersection(&workspace).count(),
            part.len()
        );
    }
    Ok(())
}

/// Name, version and features of every crate that is built.
fn crates(layout: &Layout, selection: &[&str], edges: &str) -> Result<BTreeSet<String>> {
    let mut tree = cargo::cargo(layout);
    tree.arg("tree").args(selection).args([
        "--edges",
        edges,
        "--prefix",
        "none",
        "--format",
        "{p} [{f}]",
    ]);
    Ok(run::read(&mut tree)?.lines().map(normal).collect())
}

/// A line without its marks: repeated, macro, path of a member.
fn normal(line: &str) -> String {
    let (package, features) = line.split_once(" [").unwrap_or((line, "]"));
    let package = package.split(" (").next().unwrap_or_default();
    let features = features.split(']').next().unwrap_or_default();
    format!("{package} [{features}]")
}

fn own(part: &BTreeSet<String>, workspace: &BTreeSet<String>) -> Vec<String> {
    // A crate that macros use and programs too is there twice, and the list does not say which is
    // which. The one with more features is the macros', which all the others wait for.
    let mut widest: BTreeMap<&str, &str> = BTreeMap::new();
    for line in workspace {
        let package = line.split(" [").next().unwrap_or_default();
        let known = widest.entry(package).or_insert(line);
        if line.len() > known.len() {
            *known = line;
        }
    }
    let widest: BTreeSet<&str> = widest.into_values().collect();
    part.iter()
        .filter(|line| {
            let name = line.split(' ').next().unwrap_or_default();
            !widest.contains(line.as_str())
                && !BY_DESIGN.iter().any(|start| name.starts_with(start))
                && !BELOW_THEM.contains(&name)
        })
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_dropped() {
        assert_eq!(normal("syn v3.0.1 [full] (*)"), "syn v3.0.1 [full]");
        assert_eq!(normal("a v1.0.0 (proc-macro) []"), "a v1.0.0 []");
        assert_eq!(normal("a v1.0.0 (/x/a) [b,c]"), "a v1.0.0 [b,c]");
    }

    #[test]
    fn other_features_are_found() {
        let set = |lines: &[&str]| lines.iter().map(ToString::to_string).collect();
        let workspace = set(&["serde v1 [rc]", "burn v1 [gpu]", "a v1 []"]);
        let part = set(&["serde v1 []", "burn v1 []", "a v1 []"]);
        assert_eq!(own(&part, &workspace), ["serde v1 []"]);
        let workspace = set(&["m v1 [a,b]", "m v1 [a]"]);
        assert_eq!(own(&set(&["m v1 [a]"]), &workspace), ["m v1 [a]"]);
        assert!(own(&set(&["m v1 [a,b]"]), &workspace).is_empty());
    }
}
