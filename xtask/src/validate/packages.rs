//! Packages: each library can be published as it is, and its package holds all that it reads.
//!
//! Cargo packs all libraries in one call, so that those which depend on others find them. Building
//! what was packed would take as long as everything else together; instead, files that sources
//! include are looked for in the package.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::layout::Layout;
use crate::{cargo, run};

/// Libraries that are published; all other members are programs, tests and measurements.
pub(crate) const LIBRARIES: [&str; 9] = [
    "sparse-accelerate-contract",
    "sparse-accelerate-cpu",
    "sparse-accelerate-kernels",
    "sparse-accelerate",
    "sparse-accelerate-layers",
    "sparse-accelerate-baselines",
    "sparse-accelerate-checkpoint",
    "sparse-accelerate-models",
    "sparse-accelerate-engine",
];
/// Fields that a registry shows, and needs.
const FIELDS: [&str; 7] = [
    "description",
    "license",
    "rust_version",
    "authors",
    "keywords",
    "categories",
    "documentation",
];
/// Macros and attributes that read another file, before its name.
const INCLUDES: [&str; 3] = ["include_str!(\"", "include_bytes!(\"", "#[path = \""];

/// Checks manifests, packs the libraries, and checks what their sources include.
pub(crate) fn check(layout: &Layout) -> Result<()> {
    let metadata = cargo::metadata(layout)?;
    let packages = metadata["packages"]
        .as_array()
        .context("`cargo metadata` gave no packages")?;
    let mut faults = Vec::new();
    for package in packages {
        faults.extend(faults_of(package));
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("; "));
    }
    pack(layout)?;
    for package in LIBRARIES {
        let manifest = packages
            .iter()
            .find(|found| found["name"] == package)
            .and_then(|found| found["manifest_path"].as_str())
            .with_context(|| format!("there is no member {package}"))?;
        let root = Path::new(manifest).parent().context("a manifest at /")?;
        let list = run::read(cargo::cargo(layout).args([
            "package",
            "--list",
            "--allow-dirty",
            "--package",
            package,
        ]))?;
        let files: BTreeSet<PathBuf> = list.lines().map(PathBuf::from).collect();
        for file in files
            .iter()
            .filter(|file| file.extension().is_some_and(|e| e == "rs"))
        {
            let text = std::fs::read_to_string(root.join(file))
                .with_context(|| format!("cannot read {} of {package}", file.display()))?;
            for (line, included) in missing(file, &text, &files) {
                faults.push(format!(
                    "{package}: {}:{line} includes {included}, which is not in the package",
                    file.display()
                ));
            }
        }
        for wanted in ["README.md", "Cargo.toml"] {
            if !files.contains(Path::new(wanted)) {
                faults.push(format!("{package} has no {wanted}"));
            }
        }
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("; "));
    }
    println!("   {} libraries can be packed", LIBRARIES.len());
    Ok(())
}

/// Packs all libraries, without building them.
fn pack(layout: &Layout) -> Result<()> {
    let mut command = cargo::cargo(layout);
    command.args(["package", "--quiet", "--no-verify", "--allow-dirty"]);
    for package in LIBRARIES {
        command.args(["--package", package]);
    }
    run::succeed(&mut command)
}

/// Faults of one member's manifest, as `cargo metadata` gives it.
fn faults_of(package: &Value) -> Vec<String> {
    let name = package["name"].as_str().unwrap_or_default();
    let library = LIBRARIES.contains(&name);
    // `null` is any registry, an empty list is `publish = false`.
    if library != package["publish"].is_null() {
        return vec![if library {
            format!("{name} is a library, but `publish` forbids its release")
        } else {
            format!("{name} is no library to release: it needs `publish = false`")
        }];
    }
    if !library {
        return Vec::new();
    }
    let empty = |field: &&&str| {
        let value = &package[**field];
        value.is_null() || value.as_array().is_some_and(Vec::is_empty)
    };
    let mut faults: Vec<String> = FIELDS
        .iter()
        .filter(empty)
        .map(|field| format!("{name} has no {}", field.replace('_', "-")))
        .collect();
    for dependency in package["dependencies"].as_array().into_iter().flatten() {
        let other = dependency["name"].as_str().unwrap_or_default();
        let wanted = dependency["req"].as_str().unwrap_or_default();
        let ours = !dependency["path"].is_null();
        if dependency["kind"] == "dev" {
            continue;
        }
        if ours && !LIBRARIES.contains(&other) {
            faults.push(format!("{name} depends on {other}, which is not released"));
        } else if wanted == "*" {
            faults.push(format!("{name} depends on {other} without a version"));
        } else if wanted.starts_with('=') {
            faults.push(format!(
                "{name} depends on {other} {wanted}: beside any other version of it a program of \
                 users cannot be solved; `Cargo.lock` keeps ours"
            ));
        }
    }
    faults
}

/// Line and name of every included file that the package does not hold.
fn missing<'a>(
    file: &'a Path,
    text: &'a str,
    files: &'a BTreeSet<PathBuf>,
) -> impl Iterator<Item = (usize, &'a str)> {
    text.lines().enumerate().filter_map(move |(number, line)| {
        // Text about an include is none.
        if line.trim_start().starts_with("//") {
            return None;
        }
        let included = INCLUDES
            .iter()
            .find_map(|start| Some(line.split_once(start)?.1.split_once('"')?.0))?;
        let there = inside(file.parent()?, included).is_some_and(|path| files.contains(&path));
        (!there).then_some((number + 1, included))
    })
}

/// The path from the package's root, if it does not leave it.
fn inside(folder: &Path, included: &str) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for part in folder.join(included).components() {
        match part {
            Component::ParentDir => path.pop().then_some(())?,
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library() -> Value {
        serde_json::json!({
            "name": "sparse-accelerate-cpu", "publish": null, "description": "d", "license": "MIT",
            "rust_version": "1.95", "authors": ["a"], "keywords": ["k"], "categories": ["c"],
            "documentation": "u", "dependencies": [],
        })
    }

    #[test]
    fn a_library_has_all_fields_and_wide_requirements() {
        assert!(faults_of(&library()).is_empty());
        let mut package = library();
        package["keywords"] = serde_json::json!([]);
        assert_eq!(
            faults_of(&package),
            ["sparse-accelerate-cpu has no keywords"]
        );
        let mut package = library();
        package["dependencies"] = serde_json::json!([
            {"name": "burn", "req": "=0.22.1"},
            {"name": "sparse-accelerate-contract", "req": "*", "path": "/c"},
            {"name": "sparse-accelerate-eval", "req": "^0.1", "path": "/e"},
            {"name": "proptest", "req": "=1", "kind": "dev"},
        ]);
        assert_eq!(faults_of(&package).len(), 3);
    }

    #[test]
    fn only_libraries_are_released() {
        let mut package = library();
        package["publish"] = serde_json::json!([]);
        assert_eq!(faults_of(&package).len(), 1);
        package["name"] = "sparse-accelerate-tests".into();
        assert!(faults_of(&package).is_empty());
        package["publish"] = Value::Null;
        assert_eq!(faults_of(&package).len(), 1);
    }

    #[test]
    fn files_outside_the_package_are_found() {
        let files = ["src/lib.rs", "src/a.txt", "README.md"]
            .map(PathBuf::from)
            .into();
        let found = |text: &str| {
            let found = missing(Path::new("src/lib.rs"), text, &files);
            found
                .map(|(line, name)| (line, name.to_owned()))
                .collect::<Vec<_>>()
        };
        let include = |name: &str| ["include_str", "!(\"", name, "\")\n"].concat();
        assert!(found(&include("a.txt")).is_empty());
        assert!(found(&include("../README.md")).is_empty());
        let outside = "../../README.md".to_owned();
        assert_eq!(found(&include(&outside)), [(1, outside)]);
        assert_eq!(found(&include("b.txt")).len(), 1);
    }
}
