//! `bench frontier` and `calibrate` on the CPU, small: rows and plots, going on, the slowdown that is
//! allowed, a calibration that is kept and found again, what is refused.

mod support;

use std::{fs, path::Path};

use predicates::{prelude::PredicateBooleanExt, str::contains};
use serde_json::Value;
use support::{by_letter, long_model, model, program};
use tempfile::TempDir;

const SMALL: [&str; 14] = [
    "bench",
    "frontier",
    "--device",
    "flex",
    "--lengths",
    "512",
    "--heads",
    "4",
    "--kv-heads",
    "2",
    "--tiles",
    "2",
    "--runs",
    "1",
];

fn frontier(more: &[&str]) -> assert_cmd::Command {
    let mut command = program();
    command.args(SMALL).args(more);
    command
}

fn path(dir: &TempDir, name: &str) -> String {
    dir.path().join(name).to_str().expect("a path").into()
}

fn rows(file: &str, kind: &str) -> Vec<Value> {
    let text = fs::read_to_string(file).expect("a run file");
    let lines = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    lines.filter(|row: &Value| row["kind"] == kind).collect()
}

#[test]
fn the_oracle_is_a_table_a_plot_and_a_file_to_go_on_with() {
    let dir = TempDir::new().expect("a folder");
    let (file, plot) = (path(&dir, "run.jsonl"), path(&dir, "run.svg"));
    let flags = ["--oracle-only", "--out", &file, "--plot", &plot];
    let shown = contains("hold a share of the attention mass").and(contains("KV head"));
    frontier(&flags).assert().success().stdout(shown);
    let first = rows(&file, "oracle");
    // Blocks of 128 and 64, by query head and by KV head, five shares.
    assert_eq!(first.len(), 20);
    assert!(first.iter().all(|row| row["density"].as_f64() > Some(0.0)));
    let svg = fs::read_to_string(&plot).expect("a plot");
    assert!(svg.contains("Error against density") && svg.contains("oracle, 128 by KV head"));
    frontier(&flags)
        .assert()
        .success()
        .stderr(contains("20 rows"));
    assert_eq!(rows(&file, "oracle"), first);
}

#[test]
fn the_layers_of_a_model_are_judged_together() {
    let dir = long_model(1024);
    by_letter(&dir);
    let (text, file) = (path(&dir, "text.txt"), path(&dir, "run.jsonl"));
    let letters: String = (0..1200u32)
        .map(|i| char::from(b'a' + (i * i / 7 % 16) as u8))
        .collect();
    fs::write(&text, letters).expect("text");
    let model = path(&dir, "");
    let flags = [
        "bench",
        "frontier",
        "--device",
        "flex",
        "--model",
        &model,
        "--text",
        &text,
        "--lengths",
        "640,1024",
        "--selectors",
        "group-blocks,triangular",
        "--recall",
        "0.5,0.9",
        "--tiles",
        "2",
        "--runs",
        "1",
        "--out",
        &file,
    ];
    let shown = contains("this / mass oracle").and(contains("group-blocks"));
    program().args(flags).assert().success().stdout(shown);
    assert_eq!(rows(&file, "oracle").len(), 2 * 20);
    let found = rows(&file, "frontier");
    assert_eq!(found.len(), 2 * (2 + 1));
    for row in &found {
        let density = row["density"].as_f64().expect("density");
        assert!(density > 0.0 && density <= 1.0, "{row}");
        // Two layers of one KV head with two query heads, which choose alone.
        let alone = row["selector"] == "group-blocks";
        let heads = row["heads"].as_u64();
        assert_eq!(heads, Some(if alone { 4 } else { 2 }), "{row}");
        assert_eq!(row["shared"], !alone, "{row}");
    }
    // Going on measures nothing again.
    program()
        .args(flags)
        .assert()
        .success()
        .stderr(contains("46 rows"));
    assert_eq!(rows(&file, "frontier"), found);
    let long = ["--lengths", "4k"];
    let mut command = program();
    command.args(flags.map(|flag| if flag == "640,1024" { long[1] } else { flag }));
    command.assert().code(2).stderr(contains("1200"));
}

#[test]
fn a_selector_is_held_against_the_oracle() {
    let dir = TempDir::new().expect("a folder");
    let file = path(&dir, "run.jsonl");
    let flags = ["--selectors", "triangular", "--out", &file];
    frontier(&flags)
        .assert()
        .success()
        .stdout(contains("this / oracle").and(contains("triangular")));
    let rows = rows(&file, "frontier");
    assert_eq!(rows.len(), 1);
    // Its window is longer than the prompt: every key, no error.
    assert_eq!(rows[0]["density"], 1.0);
    assert!(rows[0]["error"].as_f64().expect("a number") < 1e-6);
    assert!(rows[0]["total_ms"].as_f64() > Some(0.0));
}

#[test]
fn a_slowdown_that_is_not_allowed_fails_with_its_row() {
    let flags = ["--selectors", "auto", "--max-slowdown"];
    frontier(&[&flags[..], &["1e6"]].concat())
        .assert()
        .success();
    frontier(&[&flags[..], &["1e-6"]].concat())
        .assert()
        .code(1)
        .stderr(contains("auto at 512 tokens takes").and(contains("--max-slowdown 0.000001")));
}

#[test]
fn a_calibration_is_kept_found_again_and_checked() {
    let dir = TempDir::new().expect("a folder");
    let cache = |command: &mut assert_cmd::Command| {
        command.env("SPARSE_ACCELERATE_CACHE", dir.path());
    };
    let mut calibrate = program();
    calibrate.args(["calibrate", "--device", "flex", "--dtype", "f32", "--json"]);
    calibrate.args(["--heads", "2", "--kv-heads", "1", "--head-dim", "32"]);
    calibrate.args([
        "--lengths",
        "256,512,1k",
        "--break-even",
        "1k",
        "--runs",
        "3",
    ]);
    cache(&mut calibrate);
    let output = calibrate
        .assert()
        .success()
        .stderr(contains("written to"))
        .get_output()
        .clone();
    let measured: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(measured["costs"]["dense_tile"], 1.0);
    assert!(measured["costs"]["tile"].as_f64() > Some(0.0));
    assert_eq!(measured["key"]["group"], 2);

    let mut doctor = program();
    doctor.arg("doctor");
    cache(&mut doctor);
    doctor
        .assert()
        .success()
        .stdout(contains("calibrated     f32 d32 g2"));

    // A model of that shape takes it where heads choose their keys, and says from which file.
    let (weights, pattern) = (model(), path(&dir, "dynamic.toml"));
    fs::write(&pattern, "kind = \"dynamic\"").expect("a pattern");
    let mut run = program();
    run.arg("run").arg("--model").arg(weights.path());
    run.args(["a b c", "--device", "flex", "--pattern", &pattern]);
    cache(&mut run);
    run.assert()
        .success()
        .stderr(contains("calibration: ").and(contains("d32-g2.json")));

    let folder = dir.path().join("calibration");
    let file = fs::read_dir(&folder)
        .expect("a folder")
        .next()
        .expect("a file")
        .expect("a file");
    // The same file for the shape that `bench frontier` looks for is of another key.
    let name = file.file_name().to_string_lossy().replace("d32", "d128");
    fs::copy(file.path(), folder.join(&name)).expect("a copy");
    let mut bench = frontier(&["--oracle-only", "--dtype", "f32"]);
    cache(&mut bench);
    bench
        .assert()
        .code(1)
        .stderr(contains(name).and(contains("calibrate` again")));
}

/// A model's own record decides from which prompt on a run is sparse.
#[test]
fn the_record_of_a_model_is_kept_and_found_again() {
    let (dir, weights) = (TempDir::new().expect("a folder"), long_model(2048));
    let text = path(&dir, "text.txt");
    fs::write(&text, "a b c d ".repeat(400)).expect("a text");
    let cache = |command: &mut assert_cmd::Command| {
        command.env("SPARSE_ACCELERATE_CACHE", dir.path());
    };
    let mut calibrate = program();
    calibrate.args(["calibrate", "--device", "flex", "--runs", "1", "--json"]);
    calibrate.args(["--text", &text, "--break-even", "256,128"]);
    calibrate.arg("--model").arg(weights.path());
    cache(&mut calibrate);
    let output = calibrate.assert().success().get_output().clone();
    let record: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let tokens: Vec<_> = record["lengths"].as_array().expect("lengths").to_vec();
    assert_eq!(tokens.len(), 2);
    for (length, wanted) in tokens.iter().zip([128, 256]) {
        assert_eq!(length["tokens"], wanted);
        assert!(length["dense_s"].as_f64() > Some(0.0));
        assert!(length["sparse_s"].as_f64() > Some(0.0));
        let density = length["density"].as_f64().expect("a density");
        assert!(density > 0.0 && density <= 1.0, "{density}");
    }

    // Which is faster here says nothing; what a run does with it does.
    let models = dir.path().join("calibration").join("models");
    let file = fs::read_dir(&models).expect("a folder").next();
    let file = file.expect("a file").expect("a file").path();
    for (from, sparse) in [(100, true), (5000, false)] {
        let mut changed = record.clone();
        changed["break_even"] = serde_json::json!({ "kind": "from", "tokens": from });
        fs::write(&file, changed.to_string()).expect("a record");
        let mut run = program();
        run.arg("run").arg("--model").arg(weights.path());
        run.args(["--device", "flex", "--file", &text, "--raw", "--json"]);
        run.args(["--max-tokens", "1"]);
        cache(&mut run);
        let output = run.assert().success().stderr(contains("record: "));
        let report: Value = serde_json::from_slice(&output.get_output().stdout).expect("JSON");
        assert_eq!(report["attention"]["min_sparse_len"], from);
        let chosen = report.get("selection").is_some();
        assert_eq!(chosen, sparse, "{report}");
    }

    // Its own file would be another model's.
    let mut wrong = record;
    wrong["model"] = "0".repeat(64).into();
    fs::write(&file, wrong.to_string()).expect("a record");
    let mut run = program();
    run.arg("run").arg("--model").arg(weights.path());
    run.args(["a b c", "--device", "flex", "--raw"]);
    cache(&mut run);
    run.assert().code(1).stderr(contains("calibrate` again"));
}

#[test]
fn a_model_to_calibrate_needs_a_text_and_no_shape() {
    for (more, needle) in [
        (vec![], "--text"),
        (vec!["--text", "no such file", "--heads", "4"], "--heads"),
        (vec!["--text", "no such file"], "no such file"),
    ] {
        let weights = model();
        let mut calibrate = program();
        calibrate.args(["calibrate", "--device", "flex", "--model"]);
        calibrate.arg(weights.path()).args(more);
        calibrate.assert().code(2).stderr(contains(needle));
    }
}

#[test]
fn requests_that_mean_nothing_are_refused() {
    let refused = |more: &[&str], words: &str| {
        frontier(more)
            .assert()
            .code(2)
            .stdout("")
            .stderr(contains(words));
    };
    refused(&["--selectors", "dynamic:fast"], "`fast`");
    refused(&["--recall", "1.5"], "between 0 and 1");
    refused(&["--max-slowdown", "0"], "must be above 0");
    refused(&["--plot", "x.txt"], "--plot x.txt");
    refused(
        &["--oracle-only", "--selectors", "dynamic"],
        "cannot be used with",
    );
    let uneven = ["calibrate", "--heads", "3", "--kv-heads", "2"];
    program()
        .args(uneven)
        .assert()
        .code(2)
        .stderr(contains("does not divide"));
    assert!(!Path::new("no-such-folder").exists());
}
