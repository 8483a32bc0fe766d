//! The commands that work: doctor, inspect and run, on the CPU with a tiny random model.

mod support;

use std::{fs, path::Path};

use predicates::{prelude::PredicateBooleanExt, str::contains};
use serde_json::Value;
use support::{model, program};

const PROMPT: &str = "a b c d e f g h i j k l m n o a b c d e f g h i j k l m n o a b c d e f g h";

fn json(args: &[&str]) -> Value {
    let output = program()
        .args(args)
        .assert()
        .success()
        .get_output()
        .stdout
        .clone();
    serde_json::from_slice(&output).expect("one JSON object on standard output")
}

fn run_json(dir: &Path, more: &[&str]) -> Value {
    let dir = dir.to_str().expect("path");
    let base = ["run", "--model", dir, PROMPT, "--device", "flex", "--json"];
    json(&[&base[..], more].concat())
}

#[test]
fn doctor_lists_the_cpu_and_says_what_auto_takes() {
    program().arg("doctor").assert().success().stdout(
        contains("flex")
            .and(contains("auto picks:"))
            .and(contains("cargo features"))
            .and(contains("SPARSE_ACCELERATE_DATA")),
    );
    let report = json(&["doctor", "--json"]);
    let devices = report["devices"].as_array().expect("devices");
    assert!(
        devices
            .iter()
            .any(|d| d["choice"] == "flex" && d["kind"] == "cpu")
    );
    assert!(
        devices
            .iter()
            .all(|d| d["tiers"].as_array().is_some_and(|t| t.len() == 2))
    );
}

#[test]
fn inspect_lists_tensors() {
    let dir = model();
    let path = dir.path().to_str().expect("path");
    program()
        .args(["inspect", path])
        .assert()
        .success()
        .stdout(contains("model.embed_tokens.weight").and(contains("hidden_size = 64")));
    let file = dir.path().join("model.safetensors");
    let report = json(&["inspect", file.to_str().expect("path"), "--json"]);
    assert!(report["tensors"].as_array().is_some_and(|t| !t.is_empty()));
}

#[test]
fn run_streams_text_and_ends_with_a_summary() {
    let dir = model();
    program()
        .args(["run", "--model"])
        .arg(dir.path())
        .args([PROMPT, "--device", "flex", "--max-tokens", "4"])
        .assert()
        .success()
        .stdout(contains("\n"))
        .stderr(
            contains("time to first token")
                .and(contains("density"))
                .and(contains("peak memory"))
                .and(contains("min_sparse_len")),
        );
}

#[test]
fn run_reports_as_json_and_repeats() {
    let dir = model();
    let first = run_json(dir.path(), &["--max-tokens", "6"]);
    assert_eq!(first["device"], "flex");
    for path in [
        "/timings/ttft_s",
        "/memory/planned/total",
        "/decisions/0/density",
        "/text",
    ] {
        assert!(first.pointer(path).is_some(), "{path} in {first}");
    }
    let chunked = run_json(dir.path(), &["--max-tokens", "6", "--chunk", "5"]);
    assert_eq!(first["ids"], chunked["ids"]);
    let sampled = |seed| {
        let flags = ["--max-tokens", "12", "--temperature", "2", "--seed", seed];
        run_json(dir.path(), &flags)["ids"].clone()
    };
    assert_eq!(sampled("1"), sampled("1"));
    assert_ne!(sampled("1"), sampled("2"));
    // Both say that all tokens are kept.
    let kept = |k| {
        let flags = [
            "--max-tokens",
            "12",
            "--temperature",
            "2",
            "--seed",
            "1",
            "--top-k",
            k,
        ];
        run_json(dir.path(), &flags)["ids"].clone()
    };
    assert_eq!(kept("-1"), kept("0"));
    assert_ne!(kept("-1"), kept("1"));
}

#[test]
fn the_pattern_decides_the_density() {
    let dir = model();
    let flags = [
        "--attention",
        "sparse",
        "--pattern",
        "triangular",
        "--sink",
        "2",
        "--window",
        "4",
        "--last",
        "1",
    ];
    let by_flags = run_json(dir.path(), &[&flags[..], &["--max-tokens", "1"]].concat());
    let density = by_flags["density"].as_f64().expect("density");
    assert!(density < 0.6, "{density}");
    let file = dir.path().join("pattern.json");
    fs::write(
        &file,
        r#"{"kind": "triangular", "sink": 2, "window": 4, "last": 1}"#,
    )
    .expect("write");
    let file = file.to_str().expect("path");
    let flags = [
        "--attention",
        "sparse",
        "--pattern",
        file,
        "--max-tokens",
        "1",
    ];
    let by_file = run_json(dir.path(), &flags);
    assert_eq!(by_flags["density"], by_file["density"]);
    let dense = run_json(dir.path(), &["--attention", "dense", "--max-tokens", "1"]);
    assert_eq!(dense["density"], 1.0);
}

#[test]
fn the_prompt_may_come_from_a_file_or_standard_input() {
    let dir = model();
    let file = dir.path().join("prompt.txt");
    fs::write(&file, PROMPT).expect("write");
    let model = dir.path().to_str().expect("path");
    let by_file = json(&[
        "run",
        "--model",
        model,
        "--file",
        file.to_str().expect("path"),
        "--device",
        "flex",
        "--max-tokens",
        "2",
        "--json",
    ]);
    let output = program()
        .args([
            "run",
            "--model",
            model,
            "--stdin",
            "--device",
            "flex",
            "--max-tokens",
            "2",
            "--json",
        ])
        .write_stdin(PROMPT)
        .assert()
        .success();
    let by_stdin: Value = serde_json::from_slice(&output.get_output().stdout).expect("json");
    assert_eq!(by_file["ids"], by_stdin["ids"]);
    // The template adds one token; without it the prompt is one shorter.
    let raw = run_json(dir.path(), &["--raw", "--max-tokens", "1"]);
    let tokens = |v: &Value| v["prompt_tokens"].as_u64().expect("prompt_tokens");
    assert_eq!(tokens(&raw) + 1, tokens(&by_file));
}

#[test]
fn broken_weights_fail_with_one() {
    let dir = model();
    fs::write(dir.path().join("model.safetensors"), b"no").expect("write");
    program()
        .args(["run", "--model"])
        .arg(dir.path())
        .args(["a b", "--device", "flex"])
        .assert()
        .code(1)
        .stderr(contains("error: ").and(contains("model.safetensors")));
}
