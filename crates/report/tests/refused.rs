//! Files that are no run file, or not one: typed errors that say which file and what to do.

use std::{fs, path::PathBuf};

use sparse_accelerate_report::{ReportError, Run, record::RecordError};
use tempfile::TempDir;

fn fixture(name: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join("fixtures");
    fs::read_to_string(root.join(format!("{name}.jsonl"))).expect("a fixture")
}

fn read(text: &str) -> Result<Run, ReportError> {
    let dir = TempDir::new().expect("a folder");
    let path = dir.path().join("run.jsonl");
    fs::write(&path, text).expect("written");
    let run = Run::read(&path);
    if let Err(error) = &run {
        assert!(error.to_string().contains("run.jsonl"), "{error}");
    }
    run
}

#[test]
fn an_empty_file_and_one_without_header_are_refused() {
    let row = fixture("ttft").lines().nth(1).expect("a row").to_owned() + "\n";
    for text in ["", "hello\n", "{}\n", &row] {
        let error = read(text).expect_err("no run file");
        assert!(
            matches!(error, ReportError::Record(RecordError::NotARunFile { .. })),
            "{text}: {error}"
        );
    }
}

#[test]
fn another_schema_is_refused() {
    let text = fixture("ttft").replacen("\"schema\":1", "\"schema\":99", 1);
    let error = read(&text).expect_err("another schema").to_string();
    assert!(error.contains("schema") && error.contains("99"), "{error}");
}

#[test]
fn a_torn_last_line_is_left_out_and_a_damaged_line_is_named() {
    let text = fixture("ttft");
    let whole = read(&text).expect("a run");
    let torn = read(&text[..text.len() - 20]).expect("a run");
    assert_eq!(torn.rows, whole.rows[..whole.rows.len() - 1]);
    let mut lines: Vec<&str> = text.lines().collect();
    lines[2] = "{\"kind\":\"ttft\"}";
    let error = read(&(lines.join("\n") + "\n")).expect_err("damaged");
    assert!(
        matches!(
            error,
            ReportError::Record(RecordError::Damaged { line: 3, .. })
        ),
        "{error}"
    );
}

#[test]
fn two_runs_in_one_file_are_refused() {
    let (first, second) = (fixture("decode"), fixture("kernel"));
    let line = first.lines().count() + 1;
    match read(&(first + &second)) {
        Err(ReportError::Mixed { line: got, .. }) => assert_eq!(got, line),
        other => panic!("{other:?}"),
    }
}
