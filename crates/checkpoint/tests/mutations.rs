//! Damaged files never panic: random truncations and random bytes in sound files.
//!
//! Whatever comes out, a description or an error, is fine; only a panic or an endless read fails.

mod support;

use proptest::prelude::*;
use sparse_accelerate_checkpoint::{
    ImportOptions, ModelConfig, Tokenizer, WeightDtype, import_gguf, inspect,
};
use support::gguf_file::{tiny_model, tiny_sentence_piece};
use support::{llama_config, put, safetensors_f32};

/// Positions (as parts of the size) and the bytes put there, then a size to cut to.
fn edits() -> impl Strategy<Value = (Vec<(f64, u8)>, f64)> {
    (
        prop::collection::vec((0.0..1.0f64, any::<u8>()), 0..6),
        prop_oneof![Just(1.0), 0.0..1.0f64],
    )
}

fn damage(mut bytes: Vec<u8>, head: usize, (edits, cut): (Vec<(f64, u8)>, f64)) -> Vec<u8> {
    let head = head.min(bytes.len());
    for (at, byte) in edits {
        bytes[(at * head as f64) as usize] = byte;
    }
    bytes.truncate((cut * bytes.len() as f64).ceil() as usize);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn safetensors(edit in edits()) {
        let sound = safetensors_f32(&[("a", &[2, 3], &[0.0; 6]), ("b", &[4], &[0.0; 4])]);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let size = sound.len();
        put(dir.path(), "x.safetensors", &damage(sound, size, edit));
        let _ = inspect(&dir.path().join("x.safetensors"));
    }

    #[test]
    fn gguf(edit in edits(), early in any::<bool>(), pieces in any::<bool>()) {
        let sound = match pieces {
            true => tiny_sentence_piece().bytes(),
            false => tiny_model("llama").bytes(),
        };
        // Either the counts and first keys, or the whole header with the tensor table.
        let head = if early { 400 } else { 9_000 };
        let dir = tempfile::tempdir().expect("a temporary directory");
        put(dir.path(), "x.gguf", &damage(sound, head, edit));
        let path = dir.path().join("x.gguf");
        let _ = inspect(&path);
        let options = ImportOptions { dtype: WeightDtype::Bf16, tie: false };
        let _ = import_gguf(&path, &dir.path().join("out"), &options, &mut |_| {});
    }

    #[test]
    fn config_and_tokenizer_text(edit in edits()) {
        let sound = llama_config().to_string().into_bytes();
        let size = sound.len();
        let damaged = damage(sound, size, edit);
        let text = String::from_utf8_lossy(&damaged);
        let _ = ModelConfig::from_json(&text);
        let _ = Tokenizer::from_json(&text);
    }
}
