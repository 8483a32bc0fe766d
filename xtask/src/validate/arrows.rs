//! Edges between the members: each lists the members that it depends on, and may have no other.
//!
//! Read from `cargo metadata`, so that renamed or target-specific dependencies count too, and
//! dependencies of tests. An edge of the table that no manifest has any more fails as well: the
//! table is the map. Some members stay clear of Burn altogether.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cargo;
use crate::layout::Layout;

/// Every member without the `sparse-accelerate-` of its package name, and its dependencies; the
/// library `sparse-accelerate` itself is `attention`. A dependency stands above its user.
const EDGES: [(&str, &[&str]); 19] = [
    // Plain data and loops that others share.
    ("contract", &[]),
    ("cpu", &[]),
    ("inputs", &[]),
    ("report", &[]),
    ("checkpoint", &[]),
    // From kernels to the program.
    ("kernels", &["contract"]),
    ("attention", &["contract", "cpu", "kernels"]),
    ("layers", &["cpu", "kernels"]),
    ("baselines", &["attention"]),
    ("models", &["attention", "checkpoint", "layers"]),
    (
        "engine",
        &[
            "contract",
            "attention",
            "baselines",
            "checkpoint",
            "layers",
            "models",
        ],
    ),
    (
        "eval",
        &[
            "attention",
            "baselines",
            "checkpoint",
            "engine",
            "inputs",
            "models",
            "report",
        ],
    ),
    (
        "cli",
        &[
            "attention",
            "baselines",
            "checkpoint",
            "engine",
            "eval",
            "models",
            "report",
        ],
    ),
    // Nothing depends on those below.
    (
        "tests",
        &[
            "contract",
            "inputs",
            "report",
            "checkpoint",
            "kernels",
            "attention",
            "layers",
            "baselines",
            "models",
            "engine",
            "eval",
        ],
    ),
    ("ptx-check", &["kernels"]),
    ("bench-kernels", &["contract", "inputs", "kernels"]),
    ("benches", &["attention", "checkpoint", "engine", "models"]),
    ("xtask-features", &[]),
    ("xtask", &["xtask-features"]),
];
/// Package names start with this.
const PREFIX: &str = "sparse-accelerate";
/// Members that know nothing of Burn.
const WITHOUT_BURN: [&str; 7] = [
    "contract",
    "inputs",
    "report",
    "checkpoint",
    "kernels",
    "ptx-check",
    "bench-kernels",
];

/// A member and the names of all its dependencies, whatever their kind.
type Member = (String, Vec<String>);

/// Reads the members and fails with one line for every edge that is not in the table, and for
/// every edge of the table that is not there.
pub(crate) fn check(layout: &Layout) -> Result<()> {
    let members = members(&cargo::metadata(layout)?)?;
    let mut wrong = wrong_edges(&members);
    wrong.extend(unused_edges(&members));
    if !wrong.is_empty() {
        bail!("{}", wrong.join("; "));
    }
    println!("   {} members", members.len());
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

/// The name of a package of ours in the table.
fn short(package: &str) -> &str {
    match package.strip_prefix(PREFIX) {
        Some("") => "attention",
        Some(rest) => rest.strip_prefix('-').unwrap_or(package),
        None => package,
    }
}

fn row(name: &str) -> Option<&'static [&'static str]> {
    let row = EDGES.iter().find(|(member, _)| *member == name)?;
    Some(row.1)
}

fn wrong_edges(members: &[Member]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (member, dependencies) in members {
        let Some(allowed) = row(short(member)) else {
            wrong.push(format!(
                "{member} has no row in the table of edges yet; give it one in \
                 xtask/src/validate/arrows.rs"
            ));
            continue;
        };
        for dependency in dependencies {
            if WITHOUT_BURN.contains(&short(member)) && is_burn(dependency) {
                wrong.push(format!(
                    "{member} must not know Burn, but depends on {dependency}"
                ));
            }
            let ours = row(short(dependency)).is_some();
            // A crate's tests may name the crate itself.
            let itself = member == dependency;
            if ours && !itself && !allowed.contains(&short(dependency)) {
                wrong.push(format!(
                    "{member} must not depend on {dependency}; its edges are: {}",
                    allowed.join(", ")
                ));
            }
        }
    }
    wrong
}

/// Edges of the table between two members that exist, which no manifest has.
fn unused_edges(members: &[Member]) -> Vec<String> {
    let find = |name: &str| members.iter().find(|(member, _)| short(member) == name);
    let mut unused = Vec::new();
    for (member, allowed) in EDGES {
        let Some((_, dependencies)) = find(member) else {
            continue;
        };
        for other in allowed {
            if find(other).is_some() && !dependencies.iter().any(|d| short(d) == *other) {
                unused.push(format!(
                    "{member} depends on {other} no longer; take it out of the table of edges"
                ));
            }
        }
    }
    unused
}

fn is_burn(name: &str) -> bool {
    name == "burn" || name.starts_with("burn-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(name: &str, dependencies: &[&str]) -> Vec<String> {
        let dependencies = dependencies.iter().map(ToString::to_string).collect();
        wrong_edges(&[(name.to_owned(), dependencies)])
    }

    #[test]
    fn edges_of_the_table_are_fine() {
        assert!(wrong("sparse-accelerate", &["sparse-accelerate-kernels", "burn"]).is_empty());
        assert!(wrong("sparse-accelerate-benches", &["sparse-accelerate"]).is_empty());
        assert!(wrong("xtask", &["clap"]).is_empty());
    }

    #[test]
    fn other_edges_are_named() {
        assert_eq!(
            wrong("sparse-accelerate-kernels", &["sparse-accelerate-cpu"]),
            [
                "sparse-accelerate-kernels must not depend on sparse-accelerate-cpu; its edges \
                 are: contract"
            ]
        );
        // Beside it in the order of crates, and yet of no use to it.
        let layers = wrong("sparse-accelerate-layers", &["sparse-accelerate"]);
        assert_eq!(layers.len(), 1);
        let tests = wrong("sparse-accelerate-tests", &["sparse-accelerate-benches"]);
        assert_eq!(tests.len(), 1);
        assert_eq!(wrong("xtask", &["sparse-accelerate"]).len(), 1);
    }

    #[test]
    fn the_table_has_no_circle() {
        for (at, (member, allowed)) in EDGES.iter().enumerate() {
            for other in *allowed {
                let above = EDGES[..at].iter().any(|(name, _)| name == other);
                assert!(above, "{member} stands above {other}");
            }
        }
    }

    #[test]
    fn edges_that_are_gone_leave_the_table() {
        let member = |name: &str, on: &[&str]| {
            let on = on.iter().map(ToString::to_string).collect();
            (name.to_owned(), on)
        };
        let kernels = member("sparse-accelerate-kernels", &[]);
        assert!(unused_edges(std::slice::from_ref(&kernels)).is_empty());
        let both = [kernels, member("sparse-accelerate-contract", &[])];
        assert_eq!(
            unused_edges(&both),
            ["kernels depends on contract no longer; take it out of the table of edges"]
        );
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
    fn a_new_member_needs_a_row() {
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
