//! `eval` from the outside: files, tables, going on, and what it refuses. What it measures is tested
//! where it is measured.

mod support;

use std::{fs, path::Path};

use predicates::{prelude::PredicateBooleanExt, str::contains};
use serde_json::Value;
use support::{by_letter, long_model, model, program};
use tempfile::TempDir;

/// The model with a token for each letter, and a text of 200 letters.
fn letters() -> (TempDir, String) {
    let dir = model();
    by_letter(&dir);
    let text = dir.path().join("text.txt");
    let letters: String = (0..200u32)
        .map(|i| char::from(b'a' + (i * i % 16) as u8))
        .collect();
    fs::write(&text, letters).expect("text");
    (dir, text.to_str().expect("path").to_owned())
}

fn path(dir: &TempDir, name: &str) -> String {
    dir.path().join(name).to_str().expect("path").to_owned()
}

fn lines(path: &str) -> Vec<Value> {
    let text = fs::read_to_string(path).expect(path);
    text.lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect()
}

const SPARSE: &str = "dense,triangular:sink=4:window=8:last=2";

fn perplexity<'a>(dir: &'a str, text: &'a str, out: &'a str) -> Vec<&'a str> {
    vec![
        "eval",
        "perplexity",
        "--model",
        dir,
        "--device",
        "flex",
        "--text",
        text,
        "--lengths",
        "32,64",
        "--samples",
        "2",
        "--attention",
        SPARSE,
        "--out",
        out,
    ]
}

#[test]
fn perplexity_writes_rows_and_a_table_and_goes_on() {
    let (dir, text) = letters();
    let (model, out) = (path(&dir, ""), path(&dir, "rows.jsonl"));
    let args = perplexity(&model, &text, &out);
    program().args(&args).assert().success().stdout(
        contains("loss vs dense, %")
            .and(contains("divergence  same first  bits/byte"))
            .and(contains("\ndense").and(contains(" ± "))),
    );
    let rows = lines(&out);
    assert_eq!(rows.len(), 1 + 2 * 2 * 2);
    let header = &rows[0];
    assert_eq!(header["kind"], "header");
    assert_eq!(header["command"], "eval perplexity");
    assert_eq!(header["settings"]["scored"], serde_json::json!([8, 16]));
    assert_eq!(header["model"]["hash"].as_str().map(str::len), Some(64));
    assert_eq!(header["model"]["config"]["hidden_size"], 64);
    assert_eq!(rows[1]["bytes"], 8);
    let drawn = fs::read_dir(path(&dir, "rows")).expect("plots");
    let kinds: Vec<_> = drawn
        .filter_map(|entry| entry.ok()?.path().extension().map(|e| e.to_owned()))
        .collect();
    let count = |kind: &str| kinds.iter().filter(|k| *k == kind).count();
    assert!(
        count("svg") > 0 && count("svg") == count("png"),
        "{kinds:?}"
    );

    // Interrupted in the middle of a row: that row is run again, the others stay.
    let whole = fs::read_to_string(&out).expect("rows");
    let cut = whole.lines().take(4).map(|l| l.len() + 1).sum::<usize>() + 30;
    fs::write(&out, &whole[..cut]).expect("cut");
    program()
        .args(&args)
        .assert()
        .success()
        .stderr(contains("rows: 3 are in").and(contains("going on")));
    let again = lines(&out);
    assert_eq!(again.len(), rows.len());
    assert_eq!(again[..4], rows[..4]);
    for (a, b) in again.iter().zip(&rows) {
        assert_eq!((&a["attention"], &a["nll"]), (&b["attention"], &b["nll"]));
    }
}

#[test]
fn a_file_of_another_run_is_refused_with_the_difference() {
    let (dir, text) = letters();
    let (model, out) = (path(&dir, ""), path(&dir, "rows.jsonl"));
    let args = perplexity(&model, &text, &out);
    program().args(&args).assert().success();
    let before = fs::read(&out).expect("rows");
    let other = [&args[..], &["--scored", "5"]].concat();
    program()
        .args(&other)
        .assert()
        .code(2)
        .stdout("")
        .stderr(contains("scored is [8,16] there, but [5,5] here").and(contains("--out")));
    fs::write(dir.path().join("model.safetensors.index.json"), "{}").expect("another file");
    program()
        .args(&args)
        .assert()
        .code(2)
        .stderr(contains("the model's hash"));
    assert_eq!(fs::read(&out).expect("rows"), before);
}

#[test]
fn fidelity_of_dense_is_exact_and_files_have_a_default_name() {
    let (dir, text) = letters();
    let (model, here) = (path(&dir, ""), path(&dir, "here"));
    fs::create_dir(&here).expect("folder");
    program()
        .current_dir(&here)
        .args([
            "eval", "fidelity", "--model", &model, "--device", "flex", "--text", &text,
        ])
        .args([
            "--lengths",
            "64",
            "--samples",
            "1",
            "--rows",
            "8",
            "--attention",
            SPARSE,
        ])
        .assert()
        .success()
        .stdout(contains("worst head").and(contains("1.0000 (layer 0, head 0)")))
        .stderr(contains("rows: written to eval-fidelity-"));
    let mut files = fs::read_dir(&here).expect("folder").filter_map(Result::ok);
    let file = files.find(|f| f.path().is_file()).expect("a run file");
    let rows = lines(file.path().to_str().expect("path"));
    // Two layers of two heads for each attention, then its prompt.
    assert_eq!(rows.len(), 1 + 2 * (4 + 1));
    for row in rows
        .iter()
        .filter(|r| r["kind"] == "head" && r["attention"] == "dense")
    {
        assert_eq!((&row["recall"], &row["error"]), (&1.0.into(), &0.0.into()));
    }
}

#[test]
fn a_prompt_of_ones_own_goes_through_the_template() {
    let (dir, text) = letters();
    let (model, out) = (path(&dir, ""), path(&dir, "rows.jsonl"));
    fs::write(dir.path().join("prompt.txt"), "abcdefgh".repeat(8)).expect("prompt");
    let prompt = path(&dir, "prompt.txt");
    let args = [
        "eval", "fidelity", "--model", &model, "--device", "flex", "--file", &prompt, "--out", &out,
    ];
    // The template of this model puts a letter after the message.
    program().args(args).assert().success();
    assert_eq!(lines(&out).last().expect("rows")["length"], 65);
    program()
        .args(args)
        .args(["--text", &text])
        .assert()
        .code(2)
        .stderr(contains("cannot be used with"));
}

#[test]
fn what_cannot_be_measured_is_refused_before_anything_runs() {
    let (dir, text) = letters();
    let (model, out) = (path(&dir, ""), path(&dir, "rows.jsonl"));
    let refused = |args: &[&str], words: &[&str]| {
        let all = [
            args,
            &["--model", &model, "--device", "flex", "--out", &out],
        ]
        .concat();
        let mut assert = program().arg("eval").args(all).assert().code(2).stdout("");
        for word in words {
            assert = assert.stderr(contains(*word));
        }
        assert!(!Path::new(&out).exists(), "{args:?}");
    };
    let text = text.as_str();
    refused(
        &["ruler", "--tasks", "niah"],
        &["`niah`", "niah_multikey_1"],
    );
    refused(
        &["needle", "--kinds", "double"],
        &["`needle_double`", "needle_single"],
    );
    refused(
        &["needle", "--attention", "flash"],
        &["`flash`", "triangular"],
    );
    refused(&["needle", "--lengths", "2m"], &["`2m`", "1024"]);
    let windows = ["perplexity", "--text", text, "--lengths"];
    refused(
        &[&windows[..], &["64,256"]].concat(),
        &["256", "128 positions"],
    );
    refused(
        &[&windows[..], &["64", "--samples", "0"]].concat(),
        &["--samples is 0"],
    );
    refused(
        &[&windows[..], &["64", "--scored", "64"]].concat(),
        &["--scored is 64", "1 to 63"],
    );
    refused(&["perplexity", "--text", "no-such.txt"], &["no-such.txt"]);

    let short = path(&dir, "short.txt");
    fs::write(&short, "abcabc").expect("text");
    refused(
        &["fidelity", "--text", &short, "--lengths", "64"],
        &["has 6 tokens", "64 are needed"],
    );
    let spaces = path(&dir, "spaces.txt");
    fs::write(&spaces, "abc abc").expect("text");
    refused(
        &["perplexity", "--text", &spaces],
        &["byte 3", "do not give it back"],
    );
}

#[test]
fn output_that_cannot_be_written_is_refused() {
    let (dir, text) = letters();
    let model = path(&dir, "");
    let args = perplexity(&model, &text, "no/such/folder/rows.jsonl");
    program()
        .args(args)
        .assert()
        .code(2)
        .stderr(contains("no/such/folder").and(contains("--out")));
    if cfg!(target_os = "linux") {
        program()
            .args(perplexity(&model, &text, "/dev/full"))
            .assert()
            .code(1)
            .stderr(contains("disk is full").and(contains("are safe")));
    }
}

#[test]
fn baselines_stand_in_the_list_and_an_unknown_one_is_refused_with_those_there_are() {
    let (dir, (_letters, text)) = (long_model(256), letters());
    by_letter(&dir);
    let folder = TempDir::new().expect("a folder");
    let (model, out) = (path(&dir, ""), path(&folder, "rows.jsonl"));
    let run = |list: &str| {
        let mut command = program();
        command.args([
            "eval",
            "perplexity",
            "--model",
            &model,
            "--device",
            "flex",
            "--text",
            &text,
            "--lengths",
            "192",
            "--samples",
            "1",
            "--attention",
            list,
            "--out",
            &out,
            "--no-plots",
        ]);
        command.assert()
    };
    let known = contains("one of a-shape, tri-shape, minference").and(contains("trianglemix"));
    run("dense,baseline:magic")
        .code(2)
        .stdout("")
        .stderr(contains("`magic`").and(known));
    run("dense,baseline:a-shape:sink=4:window=8")
        .success()
        .stdout(contains("baseline:a-shape:sink=4:window=8"));
    let rows = lines(&out);
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[1]["density"], 1.0);
    let density = rows[2]["density"].as_f64().expect("a density");
    assert!(density > 0.05 && density < 0.2, "{density}");
}

#[test]
fn help_lists_the_attentions() {
    let mut assert = program().args(["eval", "--help"]).assert().success();
    for name in sparse_accelerate_engine::attention::ATTENTIONS {
        assert = assert.stdout(contains(name));
    }
    assert.stdout(contains("recall=X").and(contains("heads:file=")));
}

#[test]
fn help_teaches_what_is_measured() {
    for (measure, words) in [
        ("needle", ["Score: the share", "multikey", "--depths"]),
        (
            "ruler",
            ["niah_multikey_1", "arXiv 2404.06654", "--questions"],
        ),
        ("perplexity", ["bits per byte", "--keep-last", "last=N"]),
        (
            "fidelity",
            ["exp(LSE sparse - LSE dense)", "worst head", "--rows"],
        ),
    ] {
        let mut assert = program()
            .args(["eval", measure, "--help"])
            .assert()
            .success()
            .stdout(contains("Examples:").and(contains("dense")));
        for word in words {
            assert = assert.stdout(contains(word));
        }
    }
}
