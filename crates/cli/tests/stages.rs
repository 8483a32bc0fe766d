//! A model in stages, from the command line: two on the CPU, so that results can be compared with one.

mod support;

use std::path::Path;

use predicates::{prelude::PredicateBooleanExt, str::contains};
use serde_json::Value;
use support::{model, program};

const PROMPT: &str = "a b c d e f g h i j k l m n o a b c d e f g h i j k l m n o a b c d e f g h";

fn run(dir: &Path, more: &[&str]) -> Value {
    let dir = dir.to_str().expect("a path");
    let output = program()
        .args(["run", "--model", dir, PROMPT, "--json", "--max-tokens", "8"])
        .args(more)
        .assert()
        .success()
        .get_output()
        .stdout
        .clone();
    serde_json::from_slice(&output).expect("one JSON object")
}

#[test]
fn stages_answer_as_one_device_does() {
    let dir = model();
    let one = run(dir.path(), &["--device", "flex"]);
    assert_eq!(one["stages"], serde_json::json!([2]));
    for more in [
        &["--devices", "flex,flex"][..],
        &[
            "--devices",
            "flex,flex",
            "--split",
            "1,1",
            "--transport",
            "host",
        ],
        &[
            "--devices",
            "flex,flex",
            "--chunks",
            "3",
            "--stall-limit",
            "60",
        ],
    ] {
        let two = run(dir.path(), more);
        assert_eq!(two["ids"], one["ids"], "{more:?}");
        assert_eq!(two["device"], "flex,flex");
        assert_eq!(two["stages"], serde_json::json!([1, 1]));
        let count = |field: &str| two[field].as_array().map(Vec::len);
        assert_eq!(count("busy_s"), Some(2), "{more:?}");
        let stages = two.pointer("/memory/stages").and_then(Value::as_array);
        assert_eq!(stages.map(Vec::len), Some(2));
    }
    let bytes = run(
        dir.path(),
        &["--devices", "flex,flex", "--kv-dtype", "int8"],
    );
    assert_eq!(bytes["ids"].as_array().map(Vec::len), Some(8));
}

#[test]
fn a_run_file_says_what_every_stage_did() {
    let dir = model();
    let out = dir.path().join("ttft.jsonl");
    program()
        .args(["bench", "ttft", "--model"])
        .arg(dir.path())
        .args([
            "--devices",
            "flex,flex",
            "--lengths",
            "64",
            "--runs",
            "2",
            "--chunk",
            "16",
        ])
        .arg("--out")
        .arg(&out)
        .assert()
        .success()
        .stdout(contains("Stages of the pipeline").and(contains("devices at work")));
    let text = std::fs::read_to_string(&out).expect("a run file");
    let rows = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a line"));
    let rows: Vec<Value> = rows.filter(|row| row["kind"] == "ttft").collect();
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!(row["chunks"], 4, "{row}");
        let stages = row["stages"].as_array().expect("stages");
        assert_eq!(stages.len(), 2);
        let busy: f64 = stages
            .iter()
            .filter_map(|stage| stage["busy_s"].as_f64())
            .sum();
        // Of one of the runs: two devices work at most twice as long as it took.
        let runs = row["runs_s"].as_array().expect("runs");
        let longest = runs.iter().filter_map(Value::as_f64).fold(0.0, f64::max);
        assert!(busy > 0.0 && busy <= 2.0 * longest, "{row}");
    }
    program()
        .args(["bench", "decode", "--model"])
        .arg(dir.path())
        .args([
            "--devices",
            "flex,flex",
            "--lengths",
            "32",
            "--runs",
            "1",
            "--tokens",
            "4",
        ])
        .args(["--sequences", "3"])
        .assert()
        .success()
        .stdout(contains("sequences").and(contains("tokens/s, all")));
}

#[test]
fn what_cannot_be_cut_is_refused() {
    let dir = model();
    let refuse = |command: &[&str], more: &[&str], words: &str| {
        program()
            .args(command)
            .arg("--model")
            .arg(dir.path())
            .args(more)
            .assert()
            .code(2)
            .stderr(contains(words));
    };
    let run = ["run", PROMPT];
    refuse(
        &run,
        &["--devices", "flex,flex,flex"],
        "3 devices for 2 layers",
    );
    refuse(
        &run,
        &["--devices", "flex,flex", "--split", "2,1"],
        "the model has 2",
    );
    refuse(
        &run,
        &[
            "--devices",
            "flex,flex",
            "--split",
            "18446744073709551615,3",
        ],
        "the model has 2",
    );
    refuse(
        &run,
        &["--devices", "flex,flex", "--split", "even"],
        "by-memory",
    );
    refuse(&run, &["--devices", "flex,nowhere"], "wgpu[:n]");
    refuse(
        &run,
        &["--device", "flex", "--devices", "flex,flex"],
        "cannot be used with",
    );
    refuse(&run, &["--split", "1,1"], "--devices");
    for flag in [
        ["--split", "1,1"],
        ["--transport", "host"],
        ["--chunks", "2"],
        ["--stall-limit", "9"],
    ] {
        let beside = ["--device", "flex", flag[0], flag[1]];
        refuse(&run, &beside, "cannot be used with");
    }
    refuse(
        &run,
        &["--devices", "flex,flex", "--chunks", "0"],
        "--chunks is 0",
    );
    refuse(
        &run,
        &["--devices", "flex,flex", "--stall-limit", "0"],
        "--stall-limit is 0",
    );
    let tight = ["--devices", "flex,flex", "--memory-limit", "0.1m"];
    refuse(&run, &tight, "too much");
    refuse(
        &run,
        &["--device", "flex", "--memory-limit", "lots"],
        "lots",
    );
    refuse(
        &["eval", "perplexity"],
        &["--devices", "flex,flex"],
        "runs on one device",
    );
    refuse(
        &["search"],
        &["--devices", "flex,flex"],
        "runs on one device",
    );
}
