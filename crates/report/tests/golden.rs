//! Tables of small run files, as Markdown: what is written today is what was written before. Set
//! `SPARSE_ACCELERATE_GOLDEN=write` to take a change on.

use std::{fs, path::PathBuf};

use sparse_accelerate_report::{Run, markdown, tables};

fn fixture(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("tests").join("fixtures").join(name)
}

fn run(name: &str) -> Run {
    Run::read(&fixture(&format!("{name}.jsonl"))).expect("a run file")
}

#[test]
fn markdown_is_what_it_was() {
    let runs = ["ttft", "eval", "kernel", "frontier", "decode"].map(run);
    let (got, path) = (markdown(&runs), fixture("expected.md"));
    if std::env::var_os("SPARSE_ACCELERATE_GOLDEN").is_some() {
        fs::write(&path, &got).expect("written");
    }
    let expected = fs::read_to_string(&path).expect("expected.md");
    assert_eq!(got, expected, "differs from {}", path.display());
}

#[test]
fn every_row_of_a_table_has_every_cell() {
    for name in ["ttft", "eval", "kernel", "frontier", "decode"] {
        let tables = tables(&run(name));
        assert!(!tables.is_empty(), "{name}");
        for table in tables {
            assert!(
                table
                    .rows
                    .iter()
                    .all(|row| row.len() == table.columns.len())
            );
        }
    }
}

#[test]
fn dense_follows_what_is_compared_with_it() {
    let ttft = &tables(&run("ttft"))[0];
    let at = |name: &str| {
        ttft.columns
            .iter()
            .position(|c| c.name == name)
            .expect("a column")
    };
    let column = |name: &str| -> Vec<&str> {
        let at = at(name);
        ttft.rows.iter().map(|row| row[at].as_str()).collect()
    };
    let names = column("attention");
    assert_eq!(
        names[..5],
        [
            "triangular",
            "dense",
            "triangular",
            "forced density",
            "dense"
        ]
    );
    // Every row of an imposed density says so, and no other.
    for (name, remark) in names.iter().zip(column("remark")) {
        assert_eq!(
            *name == "forced density",
            remark == sparse_accelerate_report::FORCED
        );
    }
}

#[test]
fn selections_are_held_against_the_oracle_at_equal_error() {
    let tables = tables(&run("frontier"));
    let of = |title: &str| {
        let found = tables.iter().find(|table| table.title.starts_with(title));
        found.unwrap_or_else(|| panic!("no table {title}"))
    };
    let rows = &of("Selection and attention").rows;
    // 0.115 + (0.281 - 0.115) ln(0.244 / 0.134) / ln(0.244 / 0.107) of the shared blocks of 128 at 128K.
    let baseline = rows.iter().find(|row| row[1] == "minference");
    let baseline = baseline.expect("the baseline's row");
    assert_eq!(baseline[5..7], ["23.6", "1.761"]);
    // An error below the oracle's least has no density to be held against, and the mean says so.
    assert_eq!(rows[3][4..7], ["1.20e-2", "-", "-"]);
    let headline = &of("Density over the oracle's").rows;
    assert_eq!(headline[0], ["dynamic", "1.02", "1.20 (1 of 2)"]);
}
