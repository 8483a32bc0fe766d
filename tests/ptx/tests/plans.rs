//! The plans that are checked in are those that are chosen.

use sparse_accelerate_ptx_check::plans;

#[test]
fn plans_are_as_checked_in() {
    let (now, listed) = (plans::text(), include_str!("../golden/plans.txt"));
    let changed: Vec<String> = now
        .lines()
        .zip(listed.lines().chain(std::iter::repeat("")))
        .filter(|(now, listed)| now != listed)
        .map(|(now, listed)| format!("- {listed}\n+ {now}"))
        .collect();
    assert!(
        now == listed,
        "plans changed; if they should, `cargo xtask ptx --write`\n{}",
        changed.join("\n")
    );
}
