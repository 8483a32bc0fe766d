//! Logits and greedy tokens against mlx-lm, which nobody here wrote; `fixtures/mlx_reference.py` recorded them.
//!
//! Both sides make the weights from one generator. The recorded gaps between the two likeliest tokens are wider than twice the
//! tolerance, so that greedy tokens are compared exactly.

use std::path::Path;

use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::{
    reference,
    tiny::{Tiny, cache, distance, feed, whole},
};

/// Largest difference of a logit, f32 on either side; logits are of order 3.
const TOLERANCE: f32 = 1e-4;
/// Largest difference of a logit in f32 from the reference, of which 7e-6 were measured.
const TOLERANCE_REFERENCE: f32 = 2e-5;
/// Largest difference of a logit, bf16 on either side, as a share of the largest logit recorded. Either side was measured to be up to
/// 1.6 % from the reference with the same weights, and 1.8 % from the other.
const TOLERANCE_BF16: f32 = 0.025;
/// The same for a Gemma, whose norms give what a layer adds the size of what it is added to: the two sides were measured to be 2.2 %
/// apart.
const TOLERANCE_BF16_GEMMA: f32 = 0.035;
/// Tokens of a prefill chunk; no divisor of the prompt or of the window.
const CHUNK: usize = 7;

struct Case {
    name: String,
    tiny: Tiny,
    prompt: Vec<u32>,
    greedy: Vec<u32>,
    gap: f64,
    /// After every `every`-th token of the prompt.
    logits: Vec<Vec<f32>>,
    every: usize,
}

impl Case {
    /// Largest difference of a logit, in f32 of `exact`.
    fn tolerance(&self, exact: f32) -> f32 {
        match (self.tiny.bf16, self.tiny.family) {
            (false, _) => exact,
            (true, "gemma3_text") => TOLERANCE_BF16_GEMMA * self.largest(),
            (true, _) => TOLERANCE_BF16 * self.largest(),
        }
    }

    /// The largest logit recorded, in size.
    fn largest(&self) -> f32 {
        let all = self.logits.iter().flatten();
        all.fold(0.0, |largest, logit| largest.max(logit.abs()))
    }
}

fn ids(value: &Value) -> Vec<u32> {
    let list = value.as_array().expect("a list of token ids").iter();
    list.map(|id| id.as_u64().expect("a token id") as u32)
        .collect()
}

fn cases() -> Vec<Case> {
    let about: Value = serde_json::from_str(include_str!("../fixtures/mlx.json")).expect("JSON");
    let logits = include_bytes!("../fixtures/mlx.safetensors");
    let logits = SafeTensors::deserialize(logits).expect("logits");
    let every = about["every"].as_u64().expect("a number") as usize;
    let case = |case: &Value| {
        let name = case["name"].as_str().expect("a name");
        let tiny = Tiny::from_config(&case["config"]);
        assert_eq!(tiny.config_json(), case["config"], "{name}");
        let (values, _) = logits.tensor(name).expect(name).data().as_chunks();
        let values: Vec<f32> = values.iter().map(|v| f32::from_le_bytes(*v)).collect();
        Case {
            name: name.to_owned(),
            prompt: ids(&case["prompt"]),
            greedy: ids(&case["greedy"]),
            gap: case["gap"].as_f64().expect("a number"),
            logits: values.chunks(tiny.vocab).map(<[f32]>::to_vec).collect(),
            tiny,
            every,
        }
    };
    let cases: Vec<Case> = about["cases"]
        .as_array()
        .expect("a list")
        .iter()
        .map(case)
        .collect();
    assert_eq!(cases.len(), 30);
    assert_eq!(cases.iter().filter(|case| case.tiny.bf16).count(), 7);
    cases
}

fn largest(values: &[f32]) -> usize {
    let order = |a: &usize, b: &usize| values[*a].total_cmp(&values[*b]);
    (0..values.len()).max_by(order).expect("a value")
}

/// Prints, checks and returns the largest difference of every case.
fn assert_near(case: &Case, tolerance: f32, got: impl Fn(usize) -> Vec<f32>) -> f32 {
    let ends = (1..).map(|k| k * case.every);
    assert_eq!(case.logits.len(), case.prompt.len() / case.every);
    let mut worst = 0.0f32;
    for (end, expected) in ends.zip(&case.logits) {
        let apart = distance(expected, &got(end));
        assert!(apart <= tolerance, "{} at {end}: {apart}", case.name);
        worst = worst.max(apart);
    }
    println!(
        "{}: {worst:.1e} of {:.2}, {:.1e} of it",
        case.name,
        case.largest(),
        worst / case.largest()
    );
    worst
}

/// Rounded to two digits.
fn rounded(value: f32) -> Value {
    let digits = format!("{value:.1e}").parse::<f64>();
    json!(digits.expect("a number"))
}

#[test]
fn the_reference_is_that_of_mlx() {
    for case in cases() {
        let logits = reference::every(&case.tiny, &case.tiny.tensors(), &case.prompt);
        let tolerance = case.tolerance(TOLERANCE_REFERENCE);
        assert_near(&case, tolerance, |end| logits[end - 1].clone());
    }
}

/// `fixtures/parity.json`, which `docs/families.md` shows, is written anew where `SPARSE_ACCELERATE_GOLDEN` is set.
#[test]
fn logits_are_those_of_mlx() {
    let mut measured = Vec::new();
    for case in cases() {
        let model = case.tiny.load();
        let tolerance = case.tolerance(TOLERANCE);
        let worst = assert_near(&case, tolerance, |end| whole(&model, &case.prompt[..end]));
        measured.push(json!({
            "name": case.name, "family": case.tiny.family, "bf16": case.tiny.bf16, "difference": rounded(worst),
            "share": rounded(worst / case.largest()), "tolerance": rounded(tolerance),
        }));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity.json");
    if std::env::var_os("SPARSE_ACCELERATE_GOLDEN").is_some() {
        let lines: Vec<String> = measured.iter().map(Value::to_string).collect();
        let text = format!("[\n{}\n]\n", lines.join(",\n"));
        std::fs::write(&path, text).expect("writable");
    }
    let recorded = std::fs::read_to_string(path).expect("recorded");
    let recorded: Vec<Value> = serde_json::from_str(&recorded).expect("JSON");
    let names = |cases: &[Value]| {
        cases
            .iter()
            .map(|case| case["name"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(&recorded),
        names(&measured),
        "set SPARSE_ACCELERATE_GOLDEN"
    );
}

#[test]
fn greedy_tokens_are_those_of_mlx() {
    for case in cases() {
        let name = &case.name;
        let tolerance = f64::from(case.tolerance(TOLERANCE));
        assert!(case.gap > 2.0 * tolerance, "{name}: a near tie");
        let (model, total) = (case.tiny.load(), case.prompt.len());
        let mut cache = cache(&model, 1, total + case.greedy.len());
        let mut logits = Vec::new();
        for chunk in case.prompt.chunks(CHUNK) {
            logits = feed(&model, &mut cache, &[chunk], &[total]).remove(0);
        }
        let mut got = Vec::new();
        for step in 1..=case.greedy.len() {
            let next = largest(&logits) as u32;
            got.push(next);
            if step < case.greedy.len() {
                logits = feed(&model, &mut cache, &[&[next]], &[total + step]).remove(0);
            }
        }
        assert_eq!(got, case.greedy, "{name}");
    }
}
