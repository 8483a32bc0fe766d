//! The binary under test, and a model directory small enough to make on the spot.
//!
//! The model is a two-layer Llama with sixteen one-letter words and fixed pseudo-random weights: it
//! answers nonsense, the same nonsense every time.

#![allow(dead_code)] // each test binary uses its part

use std::{fs, path::Path};

use assert_cmd::Command;
use sparse_accelerate_checkpoint::ModelConfig;
use tempfile::TempDir;

const CONFIG: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32,
    "vocab_size": 16, "max_position_embeddings": 128, "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "torch_dtype": "float32",
    "bos_token_id": 0, "eos_token_id": 15
}"#;

const TEMPLATE: &str =
    "{% for m in messages %}{{ m.content }} {% endfor %}{% if add_generation_prompt %}b{% endif %}";

/// A token for each of sixteen letters: a text of them has as many tokens as letters.
const LETTERS: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
    "normalizer": null, "pre_tokenizer": null, "post_processor": null,
    "decoder": {"type": "Fuse"},
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "merges": [],
        "vocab": {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4, "f": 5, "g": 6, "h": 7,
            "i": 8, "j": 9, "k": 10, "l": 11, "m": 12, "n": 13, "o": 14, "p": 15}}}"#;

/// The binary, with no settings from outside.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sparse-accelerate"));
    command
        .env_remove("RUST_LOG")
        .env_remove("SPARSE_ACCELERATE_DATA")
        // No calibration of the machine that runs the tests.
        .env("SPARSE_ACCELERATE_CACHE", "no-such-folder");
    command
}

/// A model directory with a chat template.
pub(crate) fn model() -> TempDir {
    model_with(CONFIG)
}

/// The same with `positions` positions, for prompts that are long enough to select.
pub(crate) fn long_model(positions: usize) -> TempDir {
    let known = "\"max_position_embeddings\": 128";
    assert!(CONFIG.contains(known));
    let wanted = format!("\"max_position_embeddings\": {positions}");
    model_with(&CONFIG.replace(known, &wanted))
}

/// Gives a model a token for each letter in place of words.
pub(crate) fn by_letter(dir: &TempDir) {
    fs::write(dir.path().join("tokenizer.json"), LETTERS).expect("tokenizer");
}

fn model_with(config: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("temporary directory");
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect(name);
    write("config.json", config);
    write("tokenizer.json", &tokenizer());
    write("chat_template.jinja", TEMPLATE);
    weights(&dir.path().join("model.safetensors"));
    dir
}

fn tokenizer() -> String {
    let words: Vec<_> = (b'a'..=b'p')
        .map(|letter| format!("\"{}\": {}", char::from(letter), letter - b'a'))
        .collect();
    format!(
        r#"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": null, "pre_tokenizer": {{"type": "Whitespace"}},
            "post_processor": null, "decoder": {{"type": "Fuse"}},
            "model": {{"type": "WordLevel", "vocab": {{{}}}, "unk_token": "a"}}}}"#,
        words.join(", ")
    )
}

fn weights(path: &Path) {
    let config = ModelConfig::from_json(CONFIG).expect("config");
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    let mut state = 1u32;
    for (name, shape) in config.expected_tensors() {
        let start = data.len();
        for _ in 0..shape.iter().product::<usize>() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let unit = (state >> 8) as f32 / (1u32 << 24) as f32 - 0.5;
            data.extend_from_slice(&(unit * 0.4).to_le_bytes());
        }
        header.insert(
            name,
            serde_json::json!({
                "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]
            }),
        );
    }
    let mut text = serde_json::to_string(&header).expect("header");
    // The format wants the data aligned to 8 bytes.
    while text.len() % 8 != 0 {
        text.push(' ');
    }
    let mut file = (text.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(text.as_bytes());
    file.extend_from_slice(&data);
    fs::write(path, file).expect("weights");
}
