//! A model directory without weights: a tokenizer with a token for every byte, and a configuration for
//! random weights. A text has as many tokens as bytes, so lengths can be counted by hand.

#![allow(dead_code)] // each test binary uses its part

use std::{fs, path::Path};

use burn::tensor::Device;
use sparse_accelerate_checkpoint::{ModelDir, WeightDtype};
use sparse_accelerate_engine::Loaded;
use sparse_accelerate_eval::{Corpus, Format, Sources};
use sparse_accelerate_models::{CausalLm, LoadOptions};
use sparse_accelerate_report::record::{Header, ModelMetadata, SCHEMA, WeightSource};
use tempfile::TempDir;

/// Positions of the model.
pub(crate) const POSITIONS: usize = 8192;

const CONFIG: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32,
    "vocab_size": 256, "max_position_embeddings": 8192, "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "torch_dtype": "float32",
    "bos_token_id": null, "eos_token_id": null
}"#;

/// The byte-level alphabet: bytes that print stand for themselves, the others follow from U+0100 on.
fn alphabet() -> Vec<char> {
    let prints = |byte: &u32| {
        (0x21..=0x7e).contains(byte) || (0xa1..=0xac).contains(byte) || (0xae..=0xff).contains(byte)
    };
    let mut next = 0x100;
    (0..256u32)
        .map(|byte| {
            let code = if prints(&byte) {
                byte
            } else {
                next += 1;
                next - 1
            };
            char::from_u32(code).expect("a character")
        })
        .collect()
}

/// `normalizer` is JSON, `null` for none.
pub(crate) fn tokenizer(normalizer: &str) -> String {
    let letters = alphabet().into_iter().enumerate();
    let vocab: serde_json::Map<String, serde_json::Value> = letters
        .map(|(id, letter)| (letter.to_string(), id.into()))
        .collect();
    let vocab = serde_json::to_string(&vocab).expect("JSON");
    let byte_level = r#"{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}"#;
    format!(
        r#"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": {normalizer}, "pre_tokenizer": {byte_level}, "post_processor": null,
            "decoder": {byte_level},
            "model": {{"type": "BPE", "dropout": null, "unk_token": null,
                "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
                "byte_fallback": false, "vocab": {vocab}, "merges": []}}}}"#
    )
}

/// A directory with tokenizer and configuration; with a chat template of `[text]` where `chat`.
pub(crate) fn directory(chat: bool) -> (TempDir, ModelDir) {
    directory_of(CONFIG, chat)
}

/// The same with rotary frequencies that follow a sequence's length from 256 tokens on.
pub(crate) fn directory_of_dynamic_ntk() -> (TempDir, ModelDir) {
    let config = CONFIG.replace(
        r#""max_position_embeddings": 8192,"#,
        r#""max_position_embeddings": 256, "rope_scaling": {"type": "dynamic", "factor": 32.0},"#,
    );
    directory_of(&config, false)
}

fn directory_of(config: &str, chat: bool) -> (TempDir, ModelDir) {
    let dir = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect(name);
    write("config.json", config);
    write("tokenizer.json", &tokenizer("null"));
    if chat {
        let template = "{% for m in messages %}[{{ m.content }}]{% endfor %}";
        write("chat_template.jinja", template);
    }
    let opened = ModelDir::open(dir.path()).expect("a model directory");
    (dir, opened)
}

/// Random weights for it.
pub(crate) fn model(dir: &ModelDir) -> Loaded {
    let mut options = LoadOptions::new(Device::flex());
    options.model.dtype = Some(WeightDtype::F32);
    Loaded::Whole(CausalLm::random(dir.config(), 1, &options).expect("a model"))
}

/// Prose of `sentences` sentences of made-up words that all differ.
pub(crate) fn prose(sentences: usize) -> String {
    let syllable = |i: usize| {
        let (consonant, vowel) = (b"bdfgklmnprstvz"[i % 14], b"aeiou"[i / 14 % 5]);
        format!("{}{}", char::from(consonant), char::from(vowel))
    };
    let word = |i: usize| format!("{}{}n", syllable(i), syllable(i / 70));
    let sentence = |i: usize| {
        format!(
            "The {} {} number {i} stands by the {}; nobody “counted” it.",
            word(3 * i),
            word(3 * i + 1),
            word(3 * i + 2)
        )
    };
    let sentences: Vec<String> = (0..sentences).map(sentence).collect();
    sentences.join(" ")
}

pub(crate) fn corpus(dir: &ModelDir, sentences: usize) -> Corpus {
    Corpus::new("prose", &prose(sentences), dir.tokenizer()).expect("a text")
}

pub(crate) fn sources<'a>(corpus: &'a Corpus, dir: &'a ModelDir) -> Sources<'a> {
    Sources {
        corpus,
        questions: None,
        format: Format::new(dir, false),
    }
}

/// A header that says little; rows do not depend on it.
pub(crate) fn header(dir: &Path) -> Header {
    Header {
        schema: SCHEMA,
        command: "eval test".into(),
        arguments: Vec::new(),
        version: "0".into(),
        commit: None,
        started: "2026-11-25T21:00:00Z".into(),
        seed: 7,
        model: Some(ModelMetadata {
            name: dir.display().to_string(),
            hash: None,
            weights: WeightSource::Random,
            parameters: 1,
            config: serde_json::Value::Null,
        }),
        device: "flex".into(),
        dtype: "f32".into(),
        chunk: 256,
        settings: serde_json::Map::new(),
    }
}
