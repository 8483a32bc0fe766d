//! Tests of the lines that survive an interruption and of the files that are refused.

use std::fs;

use super::*;
use crate::record::SkippedRow;

fn header() -> Header {
    Header {
        schema: SCHEMA,
        command: "eval needle".into(),
        arguments: vec!["--seed".into(), "7".into()],
        version: "0.1.0".into(),
        commit: None,
        started: "2026-11-25T21:00:00Z".into(),
        seed: 7,
        model: None,
        device: "flex".into(),
        dtype: "f32".into(),
        chunk: 2048,
        settings: [("lengths".to_owned(), serde_json::json!([1024]))]
            .into_iter()
            .collect(),
    }
}

fn row(what: &str) -> Line {
    Line::Skipped(SkippedRow {
        what: what.into(),
        reason: "a test".into(),
    })
}

/// A file with rows `a` and `b`, closed.
fn two_rows(path: &Path) {
    let (mut file, rows) = RunFile::create_or_resume(path, &header()).unwrap();
    assert!(rows.is_empty());
    file.append(&row("a")).unwrap();
    file.append_all(&[row("b")]).unwrap();
    assert_eq!(file.rows(), 2);
}

#[test]
fn rows_come_back_and_more_can_follow() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.jsonl");
    two_rows(&path);
    let later = Header {
        started: "2027-01-01T00:00:00Z".into(),
        ..header()
    };
    let (mut file, rows) = RunFile::create_or_resume(&path, &later).unwrap();
    assert_eq!(rows, [row("a"), row("b")]);
    file.append(&row("c")).unwrap();
    drop(file);
    let (read_header, rows) = read(&path).unwrap();
    assert_eq!(read_header, header());
    assert_eq!(rows, [row("a"), row("b"), row("c")]);
}

#[test]
fn a_torn_end_is_cut_off_wherever_it_was_torn() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.jsonl");
    two_rows(&path);
    let whole = fs::read(&path).unwrap();
    let ends: Vec<usize> = (0..whole.len()).filter(|i| whole[*i] == b'\n').collect();
    for cut in 0..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let complete = ends.iter().filter(|end| **end < cut).count();
        let (mut file, rows) = RunFile::create_or_resume(&path, &header()).unwrap();
        assert_eq!(rows.len(), complete.saturating_sub(1), "cut at {cut}");
        for name in ["a", "b"].iter().skip(rows.len()) {
            file.append(&row(name)).unwrap();
        }
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), whole, "cut at {cut}");
    }
}

#[test]
fn a_damaged_line_is_named_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.jsonl");
    two_rows(&path);
    let broken = fs::read_to_string(&path)
        .unwrap()
        .replacen("\"a\"", "\"a", 1);
    fs::write(&path, &broken).unwrap();
    let error = RunFile::create_or_resume(&path, &header()).unwrap_err();
    assert!(
        matches!(error, RecordError::Damaged { line: 2, .. }),
        "{error}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), broken);
}

#[test]
fn a_file_that_is_no_run_file_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notes.txt");
    for text in ["my notes", "my notes\n", "{\"kind\":\"skipped\"}\n"] {
        fs::write(&path, text).unwrap();
        let error = RunFile::create_or_resume(&path, &header()).unwrap_err();
        assert!(
            matches!(error, RecordError::NotARunFile { .. }),
            "{text:?}: {error}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    fs::write(&path, "").unwrap();
    assert!(matches!(read(&path), Err(RecordError::NotARunFile { .. })));
    assert!(RunFile::create_or_resume(&path, &header()).is_ok());
}

#[test]
fn another_run_is_named_by_its_first_difference() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.jsonl");
    two_rows(&path);
    let with = |change: fn(&mut Header)| {
        let mut asked = header();
        change(&mut asked);
        RunFile::create_or_resume(&path, &asked)
            .unwrap_err()
            .to_string()
    };
    for (error, word) in [
        (with(|h| h.seed = 8), "seed is 7 there, but 8 here"),
        (with(|h| h.command = "eval ruler".into()), "the command"),
        (with(|h| h.dtype = "f16".into()), "dtype is "),
        (with(|h| h.schema = 2), "the schema"),
        (
            with(|h| drop(h.settings.insert("lengths".into(), 5.into()))),
            "lengths is [1024]",
        ),
        (
            with(|h| drop(h.settings.insert("samples".into(), 5.into()))),
            "samples is null",
        ),
    ] {
        assert!(
            error.contains(word) && error.contains("another file"),
            "{error}"
        );
    }
}

#[test]
fn two_processes_do_not_mix_their_lines() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.jsonl");
    let first = RunFile::create_or_resume(&path, &header()).unwrap();
    let error = RunFile::create_or_resume(&path, &header()).unwrap_err();
    assert!(matches!(error, RecordError::Locked { .. }), "{error}");
    drop(first);
    assert!(RunFile::create_or_resume(&path, &header()).is_ok());
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let error = RunFile::create_or_resume(Path::new("no/such/run.jsonl"), &header()).unwrap_err();
    assert!(matches!(error, RecordError::Open { .. }), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_says_that_rows_are_safe() {
    let error = RunFile::create_or_resume(Path::new("/dev/full"), &header()).unwrap_err();
    assert!(
        matches!(error, RecordError::Full { rows: 0, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("are safe"));
}
