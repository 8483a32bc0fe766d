//! Heads that choose their keys, from the outside: records, explanations, search. The tiny model is random,
//! so what it chooses means nothing; what is said of it must agree with itself.

mod support;

use std::{fs, path::Path};

use predicates::{prelude::PredicateBooleanExt, str::contains};
use serde_json::Value;
use support::{by_letter, long_model, program};

/// Tokens of the prompt, a little over two blocks of a chunk of 300.
const TOKENS: usize = 600;

/// Words of the tiny model's vocabulary, without its end token.
fn prompt() -> String {
    let words = (0..TOKENS).map(|i| char::from(b'a' + (i * i % 15) as u8).to_string());
    words.collect::<Vec<_>>().join(" ")
}

fn run_json(dir: &Path, more: &[&str]) -> Value {
    let prompt = prompt();
    let base = [
        "run",
        "--model",
        dir.to_str().expect("path"),
        &prompt,
        "--device",
        "flex",
        "--json",
        "--raw",
        "--max-tokens",
        "1",
        "--attention",
        "sparse",
    ];
    let args = [&base[..], more].concat();
    let output = program().args(args).assert().success();
    serde_json::from_slice(&output.get_output().stdout).expect("one JSON object")
}

/// The records of all chunks of a run.
fn heads(report: &Value) -> Vec<Value> {
    let chunks = report["selection"].as_array().expect("selection");
    let heads = chunks
        .iter()
        .flat_map(|c| c["heads"].as_array().expect("heads").clone());
    heads.collect()
}

fn number(value: &Value, field: &str) -> f64 {
    value[field]
        .as_f64()
        .unwrap_or_else(|| panic!("{field} in {value}"))
}

#[test]
fn a_preset_keeps_its_promise_and_says_what_was_chosen() {
    let dir = long_model(1024);
    // Two layers of one KV head with two query heads.
    for (preset, promise, choices, more) in [
        ("safe", ("error", 0.05), 4, &[][..]),
        ("balanced", ("error", 0.1), 4, &[]),
        ("fast", ("error", 0.2), 2, &["--granularity", "per-kv-head"]),
        (
            "paper",
            ("recall", 0.95),
            2,
            &["--granularity", "per-kv-head"],
        ),
    ] {
        let flags = ["--preset", preset, "--window", "64", "--sink", "16"];
        let report = run_json(dir.path(), &[&flags, more].concat());
        let heads = heads(&report);
        assert_eq!(heads.len(), choices, "{preset}");
        let mut density = 0.0;
        for head in &heads {
            let dense = head["choice"] == "dense" || head["why"] == "measured-below-floor";
            let measured = number(head, promise.0);
            let holds = match promise {
                ("error", most) => measured <= most + 1e-6,
                (_, least) => measured >= least - 1e-3,
            };
            assert!(dense || holds, "{preset}: {head}");
            let kept = number(head, "density");
            assert!(kept > 0.0 && kept <= 1.0, "{preset}: {head}");
            density += kept / choices as f64;
        }
        assert!(
            (number(&report, "density") - density).abs() < 1e-4,
            "{preset}: {report}"
        );
        if preset == "safe" {
            assert!(
                heads.iter().all(|head| head["why"] == "dense-layer"),
                "{heads:?}"
            );
        }
    }
}

#[test]
fn a_heads_file_is_taken_as_it_is_without_a_floor() {
    let dir = long_model(1024);
    let file = dir.path().join("heads.json");
    let ours = r#"[[{"kind": "triangular", "sink": 16, "window": 64}], [{"kind": "dense"}]]"#;
    fs::write(&file, ours).expect("write");
    let file = file.to_str().expect("path");
    let flags = ["--heads-file", file, "--recall", "0", "--last", "8"];
    let report = run_json(dir.path(), &flags);
    let records = heads(&report);
    assert_eq!(records[0]["choice"], "triangular");
    let density = number(&records[0], "density");
    assert!(density > 0.1 && density < 0.6, "{}", records[0]);
    let recall = number(&records[0], "recall");
    assert!(recall > 0.0 && recall <= 1.0, "{}", records[0]);
    assert_eq!(records[1]["choice"], "dense");
    assert_eq!(
        (
            number(&records[1], "density"),
            number(&records[1], "recall")
        ),
        (1.0, 1.0)
    );

    // MInference's form lists query heads, and each then chooses.
    let theirs = r#"[{"0": ["stream_llm", 16, 64, 1], "1": ["vertical_and_slash", 30, 100, 1]},
        {"0": ["stream_llm", 16, 64, 1], "1": ["block_sparse", 100, null, 1]}]"#;
    fs::write(file, theirs).expect("write");
    let report = run_json(dir.path(), &flags);
    let records = heads(&report);
    assert_eq!(records.len(), 4);
    assert_eq!(records[2]["choice"], "triangular");

    // Another model's file.
    fs::write(file, r#"[[{"kind": "dense"}]]"#).expect("write");
    let prompt = prompt();
    program()
        .args([
            "run",
            "--model",
            dir.path().to_str().expect("path"),
            &prompt,
        ])
        .args([
            "--device",
            "flex",
            "--attention",
            "sparse",
            "--heads-file",
            file,
        ])
        .assert()
        .code(2)
        .stderr(contains("layer").and(contains("below 1")));
}

#[test]
fn an_explanation_agrees_with_the_report() {
    let dir = long_model(1024);
    let file = dir.path().join("why.json");
    let flag = format!("--explain={}", file.display());
    let chosen = ["--preset", "balanced", "--chunk", "300", &flag];
    let report = run_json(dir.path(), &chosen);
    let written: Value =
        serde_json::from_slice(&fs::read(&file).expect("file")).expect("a list of chunks");
    assert_eq!(written, report["selection"]);
    assert_eq!(written.as_array().map(Vec::len), Some(2));
    assert_eq!(
        written[1]["tokens"],
        serde_json::json!({"start": 300, "end": 600})
    );
    let svg = fs::read_to_string(file.with_extension("svg")).expect("svg");
    assert!(svg.contains("What heads chose"));
    assert!(file.with_extension("png").is_file());

    let prompt = prompt();
    program()
        .args([
            "run",
            "--model",
            dir.path().to_str().expect("path"),
            &prompt,
            "--raw",
        ])
        .args([
            "--device",
            "flex",
            "--max-tokens",
            "1",
            "--attention",
            "sparse",
        ])
        .args(["--preset", "balanced", "--explain"])
        .assert()
        .success()
        .stderr(
            contains("recall predicted")
                .and(contains("time / dense"))
                .and(contains("tokens 0 to 600")),
        );
}

#[test]
fn a_run_without_choices_says_why() {
    let dir = long_model(1024);
    let file = dir.path().join("why.json");
    program()
        .args([
            "run",
            "--model",
            dir.path().to_str().expect("path"),
            "a b c",
            "--raw",
        ])
        .args([
            "--device",
            "flex",
            "--max-tokens",
            "1",
            "--preset",
            "balanced",
        ])
        .arg(format!("--explain={}", file.display()))
        .assert()
        .success()
        .stderr(contains("no head chose its keys").and(contains("min_sparse_len")));
    assert_eq!(fs::read_to_string(&file).expect("file").trim(), "[]");
    assert!(!file.with_extension("svg").exists());
}

#[test]
fn a_search_writes_a_file_that_runs() {
    let dir = long_model(1024);
    let text = dir.path().join("text.txt");
    by_letter(&dir);
    fs::write(&text, prompt().replace(' ', "")).expect("text");
    let (model, text) = (
        dir.path().to_str().expect("path"),
        text.to_str().expect("path"),
    );
    let out = dir.path().join("heads.json");
    let out = out.to_str().expect("path");
    program()
        .args([
            "search", "--model", model, "--device", "flex", "--text", text,
        ])
        .args(["--rows", "8", "--budget", "1", "--out", out])
        .assert()
        .success()
        .stdout(contains("KV heads").and(contains("all")))
        .stderr(contains("searching").and(contains("heads.json")));
    let layers: Value = serde_json::from_slice(&fs::read(out).expect("file")).expect("JSON");
    assert_eq!(layers.as_array().map(Vec::len), Some(2));
    // A budget of everything leaves no error to any head.
    let prompt = prompt().replace(' ', "");
    let output = program()
        .args([
            "run", "--model", model, &prompt, "--raw", "--device", "flex", "--json",
        ])
        .args([
            "--max-tokens",
            "1",
            "--attention",
            "sparse",
            "--heads-file",
            out,
            "--recall",
            "0",
        ])
        .assert()
        .success();
    let report: Value = serde_json::from_slice(&output.get_output().stdout).expect("JSON");
    assert_eq!(heads(&report).len(), 2);
}

#[test]
fn sinks_and_windows_of_any_size_end_with_the_sequence() {
    let dir = long_model(1024);
    let ids = |more: &[&str]| run_json(dir.path(), more)["ids"].clone();
    let all = ids(&["--pattern", "triangular", "--sink", "1024"]);
    for flag in ["--sink", "--window", "--last"] {
        for size in ["9223372036854775808", "18446744073709551615"] {
            assert_eq!(
                ids(&["--pattern", "triangular", flag, size]),
                all,
                "{flag} {size}"
            );
        }
    }
}
