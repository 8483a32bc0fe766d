//! Wrong requests, and the program's answers: exit code 2, `error:` on standard error with
//! the way out, nothing on standard output.

mod support;

use std::fs;

use predicates::{prelude::PredicateBooleanExt, str::contains};
use support::{by_letter, model, program};

/// Runs and asserts a usage error whose text holds every one of `words`.
fn refused(args: &[&str], words: &[&str]) {
    let mut assert = program().args(args).assert().code(2).stdout("");
    for word in words {
        assert = assert.stderr(contains(*word));
    }
}

#[test]
fn no_command_teaches_the_commands() {
    program().assert().code(2).stderr(
        contains("run")
            .and(contains("doctor"))
            .and(contains("Examples:")),
    );
}

#[test]
fn help_has_examples() {
    for command in ["run", "demo", "import", "search", "calibrate"] {
        program()
            .args([command, "--help"])
            .assert()
            .success()
            .stdout(contains("Example").and(contains("Usage:")));
    }
    for command in ["inspect", "doctor"] {
        program()
            .args([command, "--help"])
            .assert()
            .success()
            .stdout(contains("Usage:"));
    }
    program()
        .arg("--version")
        .assert()
        .success()
        .stdout(contains("sparse-accelerate"));
}

#[test]
fn a_prompt_has_exactly_one_source() {
    refused(&["run", "--model", "x"], &["required", "PROMPT"]);
    refused(
        &["run", "--model", "x", "hello", "--stdin"],
        &["cannot be used with"],
    );
}

#[test]
fn a_missing_directory_is_named() {
    refused(
        &["run", "--model", "no/such/dir", "hello"],
        &["error: ", "no/such/dir"],
    );
    refused(&["demo", "--model", "no/such/dir"], &["no/such/dir"]);
    refused(&["inspect", "no/such/dir"], &["no/such/dir"]);
    refused(&["import", "no-such.gguf", "out"], &["no-such.gguf"]);
}

#[test]
fn an_empty_prompt_is_refused() {
    let dir = model();
    let dir = dir.path().to_str().expect("path");
    refused(&["run", "--model", dir, "  "], &["prompt is empty"]);
    program()
        .args(["run", "--model", dir, "--stdin"])
        .write_stdin("")
        .assert()
        .code(2)
        .stderr(contains("prompt is empty"));
    refused(
        &["run", "--model", dir, "--file", "no-such-file"],
        &["no-such-file"],
    );
}

#[test]
fn an_unknown_or_absent_device_is_refused() {
    let dir = model();
    let dir = dir.path().to_str().expect("path");
    refused(
        &["run", "--model", dir, "a", "--device", "gpu"],
        &["`gpu`", "cuda[:n]"],
    );
    refused(
        &["run", "--model", dir, "a", "--device", "wgpu:99"],
        &["wgpu:99"],
    );
    refused(
        &["run", "--model", dir, "a", "--device", "cuda:99"],
        &["cuda:99"],
    );
}

#[test]
fn lengths_over_the_model_are_refused_with_the_numbers() {
    let dir = model();
    let dir = dir.path().to_str().expect("path");
    refused(
        &[
            "run",
            "--model",
            dir,
            "a b c",
            "--device",
            "flex",
            "--max-tokens",
            "500",
        ],
        &["500", "128", "Nothing was cut off"],
    );
    let long = "a ".repeat(200);
    refused(
        &["run", "--model", dir, &long, "--device", "flex"],
        &["128"],
    );
}

#[test]
fn bad_settings_name_the_setting() {
    let dir = model();
    let dir = dir.path().to_str().expect("path");
    let run = ["run", "--model", dir, "a b", "--device", "flex"];
    for (flags, word) in [
        (["--top-p", "2"], "top_p"),
        (["--temperature=-1", "--json"], "temperature"),
        (["--window", "0"], "window"),
        (["--chunk", "0"], "--chunk"),
        (["--stop", ""], "stop string"),
        (["--dtype", "f64"], "--dtype"),
        (["--attention", "magic"], "--attention"),
    ] {
        refused(&[&run[..], &flags[..]].concat(), &[word]);
    }
}

#[test]
fn presets_and_pattern_files_are_refused_before_anything_is_opened() {
    let run = ["run", "--model", "no/such/dir", "a b"];
    for (flags, words) in [
        (
            &["--preset", "turbo"][..],
            &["--preset", "`turbo`", "balanced"][..],
        ),
        (
            &["--preset", "exact", "--recall", "1"],
            &["--recall", "exact"],
        ),
        (
            &["--preset", "fast", "--recall", "2"],
            &["recall", "between 0 and 1"],
        ),
        (
            &["--preset", "fast", "--heads-file", "x"],
            &["cannot be used with"],
        ),
        (
            &["--heads-file", "no-such.json"],
            &["--heads-file", "no-such.json"],
        ),
        (
            &["--pattern", "dynamic", "--correction", "median"],
            &["--correction", "gaussian"],
        ),
        (
            &["--preset", "balanced", "--correction", "mean"],
            &["--correction", "`group-blocks`", "--pattern dynamic"],
        ),
        (&["--explain=why.txt"], &["why.txt", ".json"]),
    ] {
        refused(&[&run[..], flags].concat(), words);
    }
    let demo = ["demo", "--model", "no/such/dir"];
    refused(
        &[&demo[..], &["--preset", "exact"]].concat(),
        &["exact", "balanced"],
    );
    refused(&[&demo[..], &["--recall", "0.9"]].concat(), &["--preset"]);
    refused(
        &[
            "bench",
            "kernel",
            "--device",
            "flex",
            "--attention",
            "balanced",
        ],
        &["`balanced`", "bench ttft"],
    );
}

#[test]
fn a_search_is_refused_with_the_numbers() {
    let dir = model();
    by_letter(&dir);
    let text = dir.path().join("text.txt");
    fs::write(&text, "abcdefgh".repeat(100)).expect("text");
    let (dir, text) = (
        dir.path().to_str().expect("path"),
        text.to_str().expect("path"),
    );
    let search = ["search", "--model", dir, "--device", "flex", "--text", text];
    for (flags, words) in [
        (&["--length", "128"][..], &["128", "at least 512"][..]),
        (&["--length", "8k,16k"], &["--length", "8k"]),
        (&["--length", "1000000"], &["--length 1000000", "tokens"]),
        (&["--length", "512", "--budget", "0"], &["--budget is 0"]),
        (&["--length", "512", "--rows", "0"], &["--rows is 0"]),
        (&["--length", "512", "--chunk", "64"], &["--chunk is 64"]),
        (
            &["--length", "512", "--out", "no/such/x.json"],
            &["no/such"],
        ),
        // The tiny model has 128 positions.
        (&["--length", "512"], &["512", "128"]),
    ] {
        refused(&[&search[..], flags].concat(), words);
    }
}

#[test]
fn a_wrong_pattern_file_shows_a_right_one() {
    let dir = model();
    let path = |name: &str| dir.path().join(name).to_str().expect("path").to_string();
    let run = |pattern: &str, words: &[&str]| {
        let model = path("");
        refused(
            &["run", "--model", &model, "a b", "--pattern", pattern],
            words,
        );
    };
    run(
        "star",
        &["`star` is not known", "dynamic", "nor is it a file"],
    );
    fs::write(path("typo.toml"), "kind = \"triangular\"\nsnik = 4\n").expect("write");
    run(&path("typo.toml"), &["snik", "kind = \"triangular\""]);
    fs::write(path("broken.json"), "{").expect("write");
    run(&path("broken.json"), &["broken.json"]);
    fs::write(path("pattern.txt"), "kind").expect("write");
    run(&path("pattern.txt"), &[".toml or .json"]);
    fs::write(path("good.toml"), "kind = \"triangular\"\nwindow = 0\n").expect("write");
    run(&path("good.toml"), &["window"]);
}

#[test]
fn a_file_that_is_no_model_is_refused() {
    let dir = model();
    let file = dir.path().join("config.json");
    refused(&["inspect", file.to_str().expect("path")], &["config.json"]);
}
