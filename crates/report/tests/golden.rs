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
    let runs = ["ttft", "eval", "kernel", "decode"].map(run);
    let (got, path) = (markdown(&runs), fixture("expected.md"));
    if std::env::var_os("SPARSE_ACCELERATE_GOLDEN").is_some() {
        fs::write(&path, &got).expect("written");
    }
    let expected = fs::read_to_string(&path).expect("expected.md");
    assert_eq!(got, expected, "differs from {}", path.display());
}

#[test]
fn every_row_of_a_table_has_every_cell() {
    for name in ["ttft", "eval", "kernel", "decode"] {
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
