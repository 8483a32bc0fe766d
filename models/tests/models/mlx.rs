//! Logits and greedy tokens against mlx-lm, which nobody here wrote; `fixtures/mlx_reference.py` recorded them.
//!
//! Both sides make the weights from one generator. The recorded gaps between the two likeliest tokens are wider than twice the
//! tolerance, so that greedy tokens are compared exactly.

use safetensors::SafeTensors;
use serde_json::Value;

use crate::tiny::{Tiny, cache, distance, feed, whole};

/// Largest difference of a logit, f32 on either side; logits are of order 3.
const TOLERANCE: f32 = 1e-4;
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
    assert_eq!(cases.len(), 16);
    cases
}

fn largest(values: &[f32]) -> usize {
    let order = |a: &usize, b: &usize| values[*a].total_cmp(&values[*b]);
    (0..values.len()).max_by(order).expect("a value")
}

#[test]
fn logits_are_those_of_mlx() {
    let mut worst = 0.0f32;
    for case in cases() {
        let model = case.tiny.load();
        let ends = (1..).map(|k| k * case.every);
        assert_eq!(case.logits.len(), case.prompt.len() / case.every);
        for (end, expected) in ends.zip(&case.logits) {
            let apart = distance(expected, &whole(&model, &case.prompt[..end]));
            assert!(apart <= TOLERANCE, "{} at {end}: {apart}", case.name);
            worst = worst.max(apart);
        }
    }
    println!("largest difference {worst:.1e}");
}

#[test]
fn greedy_tokens_are_those_of_mlx() {
    for case in cases() {
        let name = &case.name;
        assert!(case.gap > 2.0 * f64::from(TOLERANCE), "{name}: a near tie");
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
