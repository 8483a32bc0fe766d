//! Crate order: a member may depend on the members above it and on no other.
//!
//! Read from `cargo metadata`, so that renamed or target-specific dependencies count too. Two
//! layers stay clear of Burn altogether: the kernels (CubeCL only) and the checkpoint reader.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cargo;
use crate::layout::Layout;

/// Members from the bottom up, by package name. Those of one line may not see each other.
const ORDER: [&[&str]; 12] = [
    &["sparse-accelerate-contract"],
    &["sparse-accelerate-kernels", "sparse-accelerate-cpu"],
    &["sparse-accelerate"],
    &["sparse-accelerate-layers", "sparse-accelerate-baselines"],
    &["sparse-accelerate-checkpoint"],
    &["sparse-accelerate-models"],
    &["sparse-accelerate-engine"],
    &["sparse-accelerate-report", "sparse-accelerate-inputs"],
    &["sparse-accelerate-eval"],
    &["sparse-accelerate-cli"],
    &[
        "sparse-accelerate-bench-kernels",
        "sparse-accelerate-tests",
        "sparse-accelerate-ptx-check",
        "sparse-accelerate-benches",
    ],
    &["xtask"],
];
/// Members that know nothing of Burn.
const WITHOUT_BURN: [&str; 6] = [
    "sparse-accelerate-contract",
    "sparse-accelerate-report",
    "sparse-accelerate-kernels",
    "sparse-accelerate-checkpoint",
    "sparse-accelerate-inputs",
    "sparse-accelerate-bench-kernels",
];
/// Members nobody may depend on and that depend on nobody here.
const ALONE: &str = "xtask";

/// A member and the names of all its dependencies, whatever their kind.
type Member = (String, Vec<String>);

/// Reads the members and fails with one line for every arrow that points the wrong way.
pub(crate) fn check(layout: &Layout) -> Result<()> {
    let members = members(&cargo::metadata(layout)?)?;
    let wrong = wrong_arrows(&members);
    if !wrong.is_empty() {
        bail!("{}", wrong.join("; "));
    }
    println!("   {} members in order", members.len());
    Ok(())
}

fn members(metadata: &Value) -> Result<Vec<Member>> {
    let name = |value: &Value| value["name"].as_str().map(str::to_owned);
    metadata["packages"]
        .as_array()
        .context("`cargo metadata` gave no packages")?
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"]
                .as_array()
                .map(|list| list.iter().filter_map(name).collect());
            name(package).zip(dependencies)
        })
        .collect::<Option<_>>()
        .context("`cargo metadata` gave a package with no name or no dependencies")
}

fn rank(name: &str) -> Option<usize> {
    ORDER.iter().position(|line| line.contains(&name))
}

fn wrong_arrows(members: &[Member]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (member, dependencies) in members {
        let Some(own) = rank(member) else {
            wrong.push(format!(
                "{member} has no place in the order yet; give it one in xtask"
            ));
            continue;
        };
        for dependency in dependencies {
            if WITHOUT_BURN.contains(&member.as_str()) && is_burn(dependency) {
                wrong.push(format!(
                    "{member} must not know Burn, but depends on {dependency}"
                ));
            }
            let Some(other) = rank(dependency) else {
                continue;
            };
            // A crate's tests may name the crate itself.
            let itself = member == dependency;
            if !itself && (other >= own || member == ALONE) {
                wrong.push(format!("{member} must not depend on {dependency}"));
            }
        }
    }
    wrong
}

fn is_burn(name: &str) -> bool {
    name == "burn" || name.starts_with("burn-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(name: &str, dependencies: &[&str]) -> Vec<String> {
        let dependencies = dependencies.iter().map(ToString::to_string).collect();
        wrong_arrows(&[(name.to_owned(), dependencies)])
    }

    #[test]
    fn arrows_up_the_list_are_fine() {
        assert!(wrong("sparse-accelerate", &["sparse-accelerate-kernels", "burn"]).is_empty());
        assert!(wrong("sparse-accelerate-benches", &["sparse-accelerate-cli"]).is_empty());
        assert!(wrong("xtask", &["clap"]).is_empty());
    }

    #[test]
    fn arrows_down_the_list_are_named() {
        assert_eq!(
            wrong("sparse-accelerate", &["sparse-accelerate-engine"]),
            ["sparse-accelerate must not depend on sparse-accelerate-engine"]
        );
        assert_eq!(
            wrong("sparse-accelerate-tests", &["sparse-accelerate-benches"]).len(),
            1
        );
        assert_eq!(wrong("xtask", &["sparse-accelerate"]).len(), 1);
    }

    #[test]
    fn kernels_and_checkpoint_stay_clear_of_burn() {
        assert_eq!(
            wrong("sparse-accelerate-kernels", &["burn-cubecl"]).len(),
            1
        );
        assert_eq!(wrong("sparse-accelerate-checkpoint", &["burn"]).len(), 1);
        assert!(wrong("sparse-accelerate-checkpoint", &["burnish"]).is_empty());
    }

    #[test]
    fn a_new_member_needs_a_place() {
        assert_eq!(wrong("sparse-accelerate-new", &[]).len(), 1);
    }

    #[test]
    fn metadata_is_read() {
        let json = serde_json::json!({"packages": [
            {"name": "a", "dependencies": [{"name": "b", "kind": "dev"}, {"name": "c"}]}
        ]});
        let members = members(&json).unwrap();
        assert_eq!(
            members,
            [("a".to_owned(), vec!["b".to_owned(), "c".to_owned()])]
        );
    }
}
