//! Run folders: names, sessions, appended rows, summaries, and writes that fail.

use super::{environment::kernel_module, *};

fn environment() -> Environment {
    Environment {
        date: "2026-11-25".into(),
        gpu: Gpu {
            name: "NVIDIA H200".into(),
            compute_capability: Some("9.0".into()),
            driver: Some("580.159.03".into()),
            cuda: Some("13.0".into()),
            compiler: "CUDA C++".into(),
            multiprocessors: Some(132),
            shared_kib: 227,
        },
        system: "linux x86_64".into(),
        version: "0.1.0".into(),
        commit: Some("0123456789ab".into()),
        changed: Some(false),
    }
}

fn row(command: &str, median_ms: f64) -> Row {
    Row {
        command: command.into(),
        by: "sparse-accelerate".into(),
        case: "dense".into(),
        len: 8192,
        density: 1.0,
        kernel: "Wgmma 192 x 64".into(),
        plan: Some("Mma(..)".into()),
        choice: None,
        median_ms,
        min_ms: median_ms,
        tflops: Some(438.0),
        error: Some(6.58e-4),
        first_s: Some(1.4),
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> = entries
        .map(|e| {
            e.expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .collect();
    names.sort();
    names
}

#[test]
fn slugs_are_short() {
    for (name, expected) in [
        ("NVIDIA H200", "h200"),
        ("NVIDIA RTX A5000", "rtx-a5000"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA A100-SXM4-80GB", "a100-sxm4-80gb"),
        ("NVIDIA GeForce RTX 4090", "geforce-rtx-4090"),
        ("llvmpipe (LLVM 19.1.7, 256 bits)", "llvmpipe"),
        ("../é", "device"),
        ("", "device"),
    ] {
        assert_eq!(slug(name), expected, "{name}");
    }
}

#[test]
fn a_session_is_one_folder_and_another_commit_is_another() {
    let runs = tempfile::tempdir().expect("a folder");
    let open = |environment| Folder::open(runs.path(), environment).expect("opened");
    let first = environment();
    assert_eq!(open(&first).path(), runs.path().join("2026-11-25-h200"));
    assert_eq!(open(&first).path(), runs.path().join("2026-11-25-h200"));
    let other = Environment {
        commit: Some("ba9876543210".into()),
        ..environment()
    };
    for _ in 0..2 {
        assert_eq!(open(&other).path(), runs.path().join("2026-11-25-h200-2"));
    }
    assert_eq!(open(&first).path(), runs.path().join("2026-11-25-h200"));
}

#[test]
fn a_folder_that_holds_something_else_is_left_alone() {
    let runs = tempfile::tempdir().expect("a folder");
    let taken = runs.path().join("2026-11-25-h200");
    fs::create_dir(&taken).expect("made");
    fs::write(taken.join("README.md"), "by hand").expect("written");
    let folder = Folder::open(runs.path(), &environment()).expect("opened");
    assert_eq!(folder.path(), runs.path().join("2026-11-25-h200-2"));
    assert_eq!(names(&taken), ["README.md"]);
}

#[test]
fn rows_of_several_commands_and_of_peers_are_appended() {
    let runs = tempfile::tempdir().expect("a folder");
    let open = || Folder::open(runs.path(), &environment()).expect("opened");
    open()
        .append(&row("dense --lens 8192", 1.25))
        .expect("saved");
    open()
        .append(&row("decode --lens 8192", 0.5))
        .expect("saved");
    let folder = open();
    // A peer's line: no newline at its end, and no more than it knows.
    let file = folder.path().join(ROWS);
    let peer = r#"{"command":"dense.py 8192","by":"torch 2.11","case":"dense","len":8192,"density":1.0,"kernel":"fa2","median_ms":1.755,"min_ms":1.7,"note":"kept"}"#;
    fs::write(&file, read(&file).expect("rows") + peer).expect("written");
    folder
        .append(&row("dense --lens 8192", 1.5))
        .expect("saved");

    let rows = parse(&read(&file).expect("rows")).expect("rows");
    let times: Vec<_> = rows.iter().map(|r| r.median_ms).collect();
    assert_eq!(times, [1.25, 0.5, 1.755, 1.5]);
    assert_eq!(rows[2].tflops, None);
    assert_eq!(names(folder.path()), [ENVIRONMENT, ROWS, SUMMARY]);

    let text = read(&folder.path().join(SUMMARY)).expect("summary");
    let at = |what: &str| {
        text.find(what)
            .unwrap_or_else(|| panic!("no {what:?} in {text}"))
    };
    assert!(
        at("## `dense --lens 8192`") < at("## `decode --lens 8192`"),
        "{text}"
    );
    assert!(
        at("## `decode --lens 8192`") < at("## `dense.py 8192`"),
        "{text}"
    );
    assert!(
        at("1.2500") < at("1.5000") && at("1.5000") < at("0.5000"),
        "{text}"
    );
    assert!(
        at("| fa2 | 1.7550 | 1.7000 |  |  |  |") > at("By torch 2.11"),
        "{text}"
    );
    assert!(text.contains("| driver | 580.159.03 |"), "{text}");
    assert!(text.contains("| commit | 0123456789ab |"), "{text}");
}

#[test]
fn the_summary_says_who_chose() {
    let mut rows = vec![row("dense --tuned", 1.0), row("dense --tuned", 0.9)];
    rows[0].choice = Some("order".into());
    rows[1].choice = Some("tuner".into());
    let text = summary::render(&environment(), &rows);
    assert!(text.contains("| kernel | chosen by |"), "{text}");
    assert!(
        text.contains("| Wgmma 192 x 64 | tuner | 0.9000 |"),
        "{text}"
    );
}

#[test]
fn a_line_cut_short_is_named_and_kept() {
    let runs = tempfile::tempdir().expect("a folder");
    let folder = Folder::open(runs.path(), &environment()).expect("opened");
    let file = folder.path().join(ROWS);
    fs::write(&file, "{\"command\":\"de").expect("written");
    let error = folder
        .append(&row("dense", 1.0))
        .expect_err("a broken line");
    assert!(
        format!("{error:#}").contains("rows.ndjson, line 1"),
        "{error:#}"
    );
    // The measurement was saved before the summary failed.
    assert_eq!(read(&file).expect("rows").lines().count(), 2);
}

#[test]
fn a_write_that_fails_leaves_the_old_file_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(ROWS);
    write_whole(&path, "whole\n").expect("written");
    let full = replace(&path, |file| {
        file.write_all(b"ha")?;
        Err(io::ErrorKind::StorageFull.into())
    });
    assert_eq!(full.expect_err("full").kind(), io::ErrorKind::StorageFull);
    assert_eq!(read(&path).expect("read"), "whole\n");
    assert_eq!(names(folder.path()), [ROWS]);
}

#[test]
fn the_driver_version_is_found_in_either_line() {
    let open =
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.03  Release Build\nGCC";
    assert_eq!(kernel_module(open).as_deref(), Some("580.159.03"));
    let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19";
    assert_eq!(kernel_module(closed).as_deref(), Some("535.104.05"));
    assert_eq!(kernel_module(""), None);
}

#[test]
fn an_environment_survives_the_file() {
    let text = serde_json::to_string(&environment()).expect("written");
    assert_eq!(
        serde_json::from_str::<Environment>(&text).expect("read"),
        environment()
    );
}
