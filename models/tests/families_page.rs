//! `docs/families.md` is what the registry of families gives.

#[path = "../examples/families/faults.rs"]
mod faults;
#[path = "../examples/families/page.rs"]
mod page;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

#[test]
fn the_page_of_families_is_up_to_date() {
    let written = std::fs::read_to_string(format!("{ROOT}/docs/families.md")).unwrap_or_default();
    let page = page::page();
    let lines = written.lines().zip(page.lines());
    let apart = lines.enumerate().find(|(_, (old, new))| old != new);
    assert!(
        written == page,
        "docs/families.md is stale, from line {:?} on: cargo run -p sparse-accelerate-models --example families > docs/families.md",
        apart.map(|(at, _)| at + 1)
    );
}

#[test]
fn the_tests_that_the_page_names_are_there() {
    for fault in faults::FAULTS {
        let (file, test) = fault.test;
        let text = std::fs::read_to_string(format!("{ROOT}/{file}")).expect(file);
        assert!(
            text.contains(&format!("fn {test}(")),
            "{file} has no {test}"
        );
    }
}
