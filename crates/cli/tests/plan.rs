//! `plan`: tables, JSON, refusals with what fits instead, wrong names and splits. No weights are read.

mod support;

use std::path::Path;

use predicates::{prelude::PredicateBooleanExt, str::contains};
use serde_json::Value;
use support::{model, program};

fn shape(name: &str) -> String {
    let shapes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benches/shapes");
    let path = shapes.join(name);
    path.to_str().expect("a path").into()
}

fn plan(more: &[&str]) -> assert_cmd::Command {
    let mut command = program();
    command.args(["plan", "--config", &shape("llama-3.1-8b.json")]);
    command.args(more);
    command
}

const TWO: [&str; 2] = ["--devices", "rtx-a5000,rtx-a5000"];

fn json(command: &mut assert_cmd::Command, code: i32) -> Value {
    let output = command.arg("--json").assert().code(code);
    serde_json::from_slice(&output.get_output().stdout).expect("JSON")
}

#[test]
fn two_cards_hold_128k_and_the_table_says_so() {
    plan(&TWO)
        .args(["--context", "128k"])
        .assert()
        .success()
        .stdout(
            contains("32 layers, 8.03 billion parameters")
                .and(contains("0..16  7.48 GiB  8.00 GiB"))
                .and(contains("16..32  7.48 GiB  8.00 GiB"))
                .and(contains(
                    "longest context: 131072 tokens (the model's positions)",
                ))
                .and(contains("one device at a time  pipelined"))
                .and(contains("sparse, density 0.046"))
                .and(contains("not run here"))
                .and(contains("stated    512 MiB a card")),
        );
}

#[test]
fn json_has_every_number_of_the_table() {
    let found = json(
        plan(&TWO).args(["--context", "32k", "--max-tokens", "768"]),
        0,
    );
    assert_eq!(found["fits"], true);
    assert_eq!(found["request"]["prompt"], 32_000);
    assert_eq!(found["model"]["layers"], 32);
    let stages = found["plan"]["stages"].as_array().expect("stages");
    assert_eq!(stages.len(), 2);
    for stage in stages {
        let number = |path: &str| stage.pointer(path).and_then(Value::as_u64).expect(path);
        assert_eq!(number("/memory/cache"), 2 << 30);
        let [total, free, has] = ["/total", "/free", "/device/memory"].map(number);
        assert_eq!(total + free, has);
    }
    for path in [
        "/plan/longest",
        "/plan/times/dense/sequential_s",
        "/plan/times/sparse/pipelined_s",
        "/notes/0/kind",
    ] {
        assert!(found.pointer(path).is_some(), "{path} in {found}");
    }
}

#[test]
fn a_refusal_says_what_fits_and_that_does() {
    let one = ["--devices", "rtx-3090", "--context", "64k"];
    plan(&one).assert().code(2).stdout("").stderr(
        contains("layers 0..32")
            .and(contains("too much"))
            .and(contains("KV cache 8.00 GiB"))
            .and(contains("--kv-dtype int8")),
    );
    let found = json(&mut plan(&one), 2);
    assert_eq!(found["fits"], false);
    assert_eq!(found["stage"]["memory"]["cache"], 8u64 << 30);
    let advice = found["advice"].as_array().expect("advice");
    assert!(advice.len() >= 3, "{found}");
    for advice in advice {
        let change = advice["change"].as_str().expect("a change");
        let mut args: Vec<&str> = one.to_vec();
        match change.split_once(' ') {
            Some(("one", _)) => args[1] = "rtx-3090,rtx-3090",
            Some(("--context", tokens)) => args[3] = tokens,
            _ => args.extend(change.split(' ')),
        }
        plan(&args).assert().success();
    }
}

#[test]
fn a_limit_and_an_int8_cache_change_the_answer() {
    let args = [
        "--devices",
        "h100",
        "--context",
        "80k",
        "--memory-limit",
        "24g",
    ];
    plan(&args)
        .assert()
        .code(2)
        .stderr(contains("h100 has 24.00 GiB"));
    plan(&args)
        .args(["--kv-dtype", "int8"])
        .assert()
        .success()
        .stdout(contains("KV cache int8").and(contains("given     h100 has 24.00 GiB")));
}

#[test]
fn rates_of_the_caller_rule_the_times() {
    let args = ["--devices", "h100", "--context", "8k", "--density", "0.5"];
    let with = |linear: &str| {
        let rates = ["--linear-tflops", linear, "--attention-tflops", "100"];
        let found = json(plan(&args).args(rates), 0);
        let at = "/plan/times/dense/sequential_s";
        found.pointer(at).and_then(Value::as_f64).expect("seconds")
    };
    // 111.2 TFLOP of products and 17.6 of attention.
    assert!((with("100") - 1.288).abs() < 0.002, "{}", with("100"));
    assert!((with("200") - 0.732).abs() < 0.002, "{}", with("200"));
}

#[test]
fn a_model_directory_and_the_cpu_are_enough() {
    let dir = model();
    let path = dir.path().to_str().expect("a path");
    let args = ["plan", "--model", path, "--devices", "flex"];
    program().args(args).assert().success().stdout(
        contains("2 layers")
            .and(contains("longest context: 128 tokens"))
            .and(contains("measured  flex computes"))
            .and(contains("`calibrate` measures it")),
    );
    program()
        .args(["plan", "--model", path, "--devices", "flex,flex"])
        .assert()
        .code(2)
        .stderr(contains("flex twice"));
}

#[test]
fn wrong_requests_say_what_is_allowed() {
    for (args, words) in [
        (
            &["--devices", "rtx-9999"][..],
            &["rtx-9999", "rtx-a5000", "h200", "cuda[:n]"][..],
        ),
        (
            &["--devices", "h100", "--split", "half"],
            &["by-memory", "16,16"],
        ),
        (
            &["--devices", "h100,h100", "--split", "16,15"],
            &["31 layers", "has 32"],
        ),
        (
            &["--devices", "h100,h100", "--split", "32"],
            &["there are 2"],
        ),
        (
            &["--devices", "h100,h100", "--split", "0,32"],
            &["at least one layer"],
        ),
        (&["--devices", "h100", "--context", "200k"], &["131072"]),
        (&["--devices", "h100", "--context", "long"], &["32k"]),
        (&["--devices", "h100", "--density", "2"], &["by-length"]),
        (&["--devices", "h100", "--memory-limit", "24"], &["24g"]),
        (&["--devices", "h100", "--linear-tflops", "0"], &["above 0"]),
        (&["--devices", "h100", "--chunk", "0"], &["at least 1"]),
    ] {
        let mut assert = plan(args).assert().code(2).stdout("");
        for word in words {
            assert = assert.stderr(contains(*word));
        }
    }
    program()
        .args(["plan"])
        .assert()
        .code(2)
        .stderr(contains("--model"));
    program()
        .args(["plan", "--config", "no-such-file.json"])
        .assert()
        .code(2)
        .stderr(contains("no-such-file.json"));
    // What a clone without LFS leaves, and a file without an end.
    let dir = tempfile::tempdir().expect("a folder");
    let pointer = dir.path().join("config.json");
    let text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 663\n";
    std::fs::write(&pointer, text).expect("written");
    let huge = dir.path().join("huge.json");
    let file = std::fs::File::create(&huge).expect("a file");
    file.set_len(1 << 40).expect("sparse");
    for (file, word) in [(&pointer, "Git LFS pointer"), (&huge, "over the limit")] {
        program()
            .args(["plan", "--config", file.to_str().expect("a path")])
            .assert()
            .code(2)
            .stdout("")
            .stderr(contains(word));
    }
}

#[test]
fn help_teaches_by_examples() {
    program()
        .args(["plan", "--help"])
        .assert()
        .success()
        .stdout(
            contains("Examples:")
                .and(contains("--devices rtx-a5000,rtx-a5000"))
                .and(contains("nearest first")),
        );
}
