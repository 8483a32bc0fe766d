//! Limits on what a row may hold: tables and plots are made from files that anybody may have written.
//!
//! They are far above what a run gives, and low enough that no number of a row decides an allocation or leaves the range in
//! which plots are drawn.

use serde_json::Value;

/// Numbers of layers and heads: `ModelConfig` has at most 1,024 of each.
const HEADS: f64 = 1024.0;
/// Tokens, windows, bytes of a text.
const COUNT: f64 = (1u64 << 40) as f64;
/// Every other number, and its size: seconds, bytes of memory, floating-point operations.
const LARGEST: f64 = 1e15;
/// Characters of a text, such as an answer.
const TEXT: usize = 65_536;
/// Characters of a name, such as an attention's.
const NAME: usize = 1024;

/// Numbers that have a limit of their own.
const FIELDS: [(&str, f64); 13] = [
    ("layer", HEADS),
    ("head", HEADS),
    ("layers", HEADS),
    // Of all layers together, in a frontier.
    ("heads", HEADS * HEADS),
    ("dense_heads", HEADS * HEADS),
    ("kv_heads", HEADS),
    ("length", COUNT),
    ("tokens", COUNT),
    ("depth", COUNT),
    ("sample", COUNT),
    ("start", COUNT),
    ("scored", COUNT),
    ("score", 1.0),
];
/// Texts that are names.
const NAMES: [&str; 6] = ["attention", "task", "choice", "selector", "device", "what"];
/// Any number is a seed.
const SEED: &str = "seed";

/// Checks every number and text of a row; words say what is wrong.
pub(super) fn check(row: &Value) -> Result<(), String> {
    inside("", row)
}

fn inside(field: &str, value: &Value) -> Result<(), String> {
    match value {
        Value::Null | Value::Bool(_) => Ok(()),
        Value::Number(number) => {
            let own = FIELDS.iter().find(|(name, _)| *name == field);
            let limit = own.map_or(LARGEST, |(_, limit)| *limit);
            let got = number.as_f64().unwrap_or(f64::INFINITY);
            match field == SEED || got.abs() <= limit {
                true => Ok(()),
                false => Err(format!("`{field}` is {number}, the limit is {limit}")),
            }
        }
        Value::String(text) => {
            let limit = if NAMES.contains(&field) { NAME } else { TEXT };
            let length = text.chars().count();
            match length <= limit {
                true => Ok(()),
                false => Err(format!(
                    "`{field}` has {length} characters, the limit is {limit}"
                )),
            }
        }
        Value::Array(values) => values.iter().try_for_each(|value| inside(field, value)),
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
            let length = name.chars().count();
            match length <= NAME {
                true => inside(name, value),
                false => Err(format!(
                    "a field's name has {length} characters, the limit is {NAME}"
                )),
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_runs_give_is_taken() {
        let row = json!({
            "kind": "answer", "attention": "balanced:recall=0.9", "length": 131_072, "depth": 0.5, "seed": u64::MAX,
            "expected": ["1234567"], "score": 1.0, "ttft_s": 13.1, "layer": 1023, "head": 0, "mix": {"dense": 3},
        });
        assert_eq!(check(&row), Ok(()));
    }

    #[test]
    fn absurd_numbers_and_texts_are_named() {
        for (row, words) in [
            (json!({"layer": 100_000_000}), ["layer", "100000000"]),
            (json!({"score": 1e300}), ["score", "1"]),
            (
                json!({"length": u64::MAX}),
                ["length", "18446744073709551615"],
            ),
            (json!({"runs_s": [0.1, -1e200]}), ["runs_s", "-1e"]),
            (
                json!({"attention": "a".repeat(65_536)}),
                ["attention", "65536"],
            ),
            (json!({"answer": "a".repeat(65_537)}), ["answer", "65537"]),
            (json!({"mix": {"b".repeat(2000): 1}}), ["name", "2000"]),
        ] {
            let reason = check(&row).expect_err("refused");
            assert!(words.iter().all(|word| reason.contains(word)), "{reason}");
            assert!(reason.len() < 120, "{reason}");
        }
    }
}
