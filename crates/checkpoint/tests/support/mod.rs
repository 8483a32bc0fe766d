//! Builders that the test files share: safetensors files, model directories, GGUF files.
//!
//! Everything is written below a temporary directory; nothing is read from the network or from real models.

#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod config;
pub(crate) mod gguf_file;
pub(crate) mod import;
pub(crate) mod tokenizer;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

/// A safetensors file from its header text and data.
pub(crate) fn safetensors_bytes(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// A sound safetensors file of f32 tensors.
pub(crate) fn safetensors_f32(tensors: &[(&str, &[usize], &[f32])]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, shape, values) in tensors {
        let begin = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        header.insert(
            (*name).to_owned(),
            json!({ "dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()] }),
        );
    }
    safetensors_bytes(&Value::Object(header).to_string(), &data)
}

/// A sound config.json of a small Llama.
pub(crate) fn llama_config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 300,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": true,
        "torch_dtype": "bfloat16",
        "bos_token_id": 256,
        "eos_token_id": 257,
    })
}

/// A byte-level tokenizer of 256 bytes and two special tokens.
pub(crate) fn byte_tokenizer() -> Value {
    let mut vocab = serde_json::Map::new();
    for (id, token) in gguf_file::byte_alphabet().into_iter().enumerate() {
        vocab.insert(token, id.into());
    }
    let added = |id: u32, content: &str| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true })
    };
    json!({
        "version": "1.0",
        "truncation": { "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0 },
        "padding": null,
        "added_tokens": [added(256, "<|start|>"), added(257, "<|end|>")],
        "normalizer": null,
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        "post_processor": null,
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                   "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                   "vocab": vocab, "merges": [] },
    })
}

/// A model directory with config, tokenizer, and two tensors of weights.
pub(crate) fn model_dir() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    put(
        dir.path(),
        "config.json",
        llama_config().to_string().as_bytes(),
    );
    put(
        dir.path(),
        "tokenizer.json",
        byte_tokenizer().to_string().as_bytes(),
    );
    let weights = safetensors_f32(&[
        ("a.weight", &[2, 2], &[1.0, 2.0, 3.0, 4.0]),
        ("b.weight", &[1], &[f32::NAN]),
    ]);
    put(dir.path(), "model.safetensors", &weights);
    dir
}

/// Writes a file.
pub(crate) fn put(dir: &Path, name: &str, bytes: &[u8]) {
    fs::write(dir.join(name), bytes).expect("a writable temporary directory");
}
