//! `bench` and `report` on the CPU: a tiny configuration with random weights, two attentions, two
//! lengths; a page of it; going on with a run; what is refused.

mod support;

use std::{fs, path::Path};

use predicates::{prelude::PredicateBooleanExt, str::contains};
use serde_json::Value;
use support::{model, program};

const CONFIG: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
    "vocab_size": 50, "max_position_embeddings": 600, "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "torch_dtype": "bfloat16"
}"#;

/// A folder with a configuration, and the arguments that use it.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::TempDir::new().expect("a folder");
        fs::write(dir.path().join("tiny.json"), CONFIG).expect("a configuration");
        Self { dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().expect("a path").into()
    }

    fn command(&self, kind: &str, more: &[&str]) -> assert_cmd::Command {
        let config = self.path("tiny.json");
        let mut command = program();
        command.args(["bench", kind, "--weights", "random", "--config", &config]);
        command.args(["--device", "flex", "--runs", "2"]).args(more);
        command
    }
}

fn lines(path: impl AsRef<Path>) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("a run file");
    let parse = |line| serde_json::from_str(line).expect("a JSON line");
    text.lines().map(parse).collect()
}

#[test]
fn ttft_of_random_weights_becomes_a_page() {
    let bench = Bench::new();
    let (out, plot, page) = (
        bench.path("ttft.jsonl"),
        bench.path("t.svg"),
        bench.path("p.html"),
    );
    let flags = [
        "--lengths",
        "64,256,512",
        "--attention",
        "triangular:sink=1:window=16:last=1",
        "--density",
        "256=0.7,512=0.5",
        "--block",
        "64",
        "--chunk",
        "128",
        "--out",
        &out,
        "--plot",
        &plot,
    ];
    bench.command("ttft", &flags).assert().success().stdout(
        contains("Time to first token")
            .and(contains(
                "forced density: random weights; times and memory only",
            ))
            .and(contains("TTFT(256) / TTFT(64)")),
    );
    let rows = lines(&out);
    assert_eq!(rows[0]["kind"], "header");
    assert_eq!(rows[0]["model"]["weights"], "random");
    let selection = rows[0]["settings"]["selection"].as_str().expect("a string");
    assert!(
        selection.starts_with("balanced: it runs whole and is timed"),
        "{selection}"
    );
    let ttft: Vec<&Value> = rows.iter().filter(|row| row["kind"] == "ttft").collect();
    assert_eq!(ttft.len(), 8);
    for row in &ttft {
        assert_eq!(row["runs_s"].as_array().map(Vec::len), Some(2), "{row}");
        assert!(row["ttft_s"].as_f64().is_some_and(|s| s > 0.0), "{row}");
        let dense = row["attention"] == "dense";
        assert_eq!(row["error"].is_null(), dense, "{row}");
        assert_eq!(row["density"] == 1.0, dense, "{row}");
        assert_eq!(
            row["forced"] == true,
            row["attention"] == "balanced, forced density",
            "{row}"
        );
    }
    let skipped = rows
        .iter()
        .find(|row| row["kind"] == "skipped")
        .expect("a skipped row");
    assert!(
        skipped["what"]
            .as_str()
            .is_some_and(|what| what.contains("64")),
        "{skipped}"
    );
    assert!(fs::read_to_string(&plot).expect("a plot").contains("<svg"));

    // The same command finds everything done.
    bench
        .command("ttft", &flags)
        .assert()
        .success()
        .stderr(contains("goes on after 9 rows"));
    assert_eq!(lines(&out).len(), rows.len());
    let other = ["--lengths", "64", "--seed", "9", "--out", &out];
    bench
        .command("ttft", &other)
        .assert()
        .failure()
        .stderr(contains("holds another run: seed is").and(contains("see --out, --seed")));

    let figures = bench.path("figures");
    program()
        .args(["report", &out, "--out", &page, "--plots", &figures])
        .assert()
        .success();
    let html = fs::read_to_string(&page).expect("a page");
    assert!(html.contains("<svg") && html.contains("forced density") && !html.contains("http"));
    assert_eq!(fs::read_dir(&figures).expect("figures").count(), 2);
    program()
        .args(["report", &out, "--markdown"])
        .assert()
        .success()
        .stdout(contains("| tokens | attention |").and(contains("RANDOM WEIGHTS")));
    program()
        .args(["report", &out])
        .assert()
        .success()
        .stdout(contains("Growth of"));
}

#[test]
fn a_length_without_room_is_a_row_and_the_others_go_on() {
    let bench = Bench::new();
    let flags = ["--lengths", "64,1k", "--attention", "dense", "--json"];
    let output = bench
        .command("ttft", &flags)
        .assert()
        .success()
        .get_output()
        .stdout
        .clone();
    let out = bench.path("printed.jsonl");
    fs::write(&out, output).expect("written");
    let kinds: Vec<Value> = lines(&out).iter().map(|row| row["kind"].clone()).collect();
    assert_eq!(kinds, ["header", "ttft", "skipped"]);
    assert!(
        lines(&out)[2]["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("600"))
    );
    // What is printed is a run file.
    program()
        .args(["report", &out])
        .assert()
        .success()
        .stdout(contains("Not run"));
    let flags = ["--lengths", "1k", "--attention", "dense"];
    bench
        .command("ttft", &flags)
        .assert()
        .code(1)
        .stderr(contains("nothing was measured"));
}

#[test]
fn decode_and_kernel_give_rows() {
    let bench = Bench::new();
    let out = bench.path("decode.jsonl");
    let flags = ["--lengths", "32,64", "--tokens", "3", "--out", &out];
    bench
        .command("decode", &flags)
        .assert()
        .success()
        .stdout(contains("ms a token"));
    let rows = lines(&out);
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[2]["depth"], 64);
    assert!(rows[2]["per_token_s"].as_f64().is_some_and(|s| s > 0.0));

    let out = bench.path("kernel.jsonl");
    let shape = [
        "--heads",
        "4",
        "--kv-heads",
        "2",
        "--head-dim",
        "32",
        "--lengths",
        "200",
    ];
    let what = [
        "--attention",
        "triangular:window=32",
        "--density",
        "0.5",
        "--block",
        "64",
    ];
    program()
        .args([
            "bench", "kernel", "--device", "flex", "--runs", "2", "--out", &out,
        ])
        .args(shape)
        .args(what)
        .assert()
        .success()
        .stdout(contains("TFLOP/s"));
    let rows = lines(&out);
    assert_eq!(rows.len(), 4);
    for row in &rows[1..] {
        assert!(
            row["error"].as_f64().is_some_and(|error| error < 2e-5),
            "{row}"
        );
        assert!(
            row["tflops"].as_f64().is_some_and(|rate| rate > 0.0),
            "{row}"
        );
    }
}

#[test]
fn a_checkpoint_is_measured_on_its_own_text() {
    let (bench, dir) = (Bench::new(), model());
    let text = bench.path("text.txt");
    fs::write(&text, "a b c d e f g").expect("a text");
    let out = bench.path("run.jsonl");
    program()
        .args(["bench", "ttft", "--model"])
        .arg(dir.path())
        .args([
            "--text",
            &text,
            "--lengths",
            "32",
            "--runs",
            "1",
            "--device",
            "flex",
        ])
        .args([
            "--attention",
            "triangular:window=4:sink=1:last=1",
            "--out",
            &out,
        ])
        .assert()
        .success();
    let rows = lines(&out);
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0]["model"]["hash"].as_str().map(str::len), Some(64));
    assert!(rows[2]["error"].as_f64().is_some_and(|error| error > 0.0));
}

#[test]
fn what_means_nothing_is_refused_before_anything_runs() {
    let bench = Bench::new();
    for (flags, word) in [
        (["--lengths", "2x"], "2x"),
        (["--attention", "flash"], "flash"),
        (["--density", "2"], "--density"),
        (["--plot", "figure.gif"], ".svg or .png"),
        (["--dtype", "f64"], "--dtype"),
        (["--chunk", "0"], "--chunk"),
    ] {
        bench
            .command("ttft", &flags)
            .assert()
            .code(2)
            .stdout("")
            .stderr(contains(word));
    }
    let flags = ["--density", "0.5", "--block", "100"];
    bench
        .command("ttft", &flags)
        .assert()
        .code(2)
        .stderr(contains("multiple of 64"));
    program()
        .args(["bench", "ttft"])
        .assert()
        .code(2)
        .stderr(contains("--model"));
    let only = bench.path("tiny.json");
    program()
        .args(["bench", "ttft", "--config", &only])
        .assert()
        .code(2)
        .stderr(contains("--weights random"));
    program()
        .args(["report", "no-such.jsonl"])
        .assert()
        .code(2)
        .stderr(contains("no-such.jsonl"));
    program()
        .args(["report", &only])
        .assert()
        .failure()
        .stderr(contains("not a run file"));
    for command in [
        &["bench"][..],
        &["bench", "ttft"],
        &["bench", "kernel"],
        &["report"],
    ] {
        program()
            .args(command)
            .arg("--help")
            .assert()
            .success()
            .stdout(contains("Examples:"));
    }
}
