//! Importing GGUF: SmolLM3, a Llama some of whose layers have no positions.
//!
//! Its files do not say which: every fourth, as llama.cpp has it in its code.

mod support;

use std::fs;

use serde_json::{Value, json};
use sparse_accelerate_checkpoint::{Architecture, GgufError, LayerAttention, LayerRotation};
use support::gguf_file::{Meta, tiny_model};
use support::import::{F32, imported, refused, values};

const LAYERS: usize = 9;

#[test]
fn a_smollm3_is_imported_with_its_layers_without_positions() {
    let mut gguf = tiny_model("smollm3");
    gguf.set_layers("smollm3", LAYERS);
    let (dir, model) = imported(&gguf, &F32);
    let config = model.config();
    assert_eq!(config.architecture, Architecture::SmolLm3);
    assert!(config.tied_embeddings && !config.qkv_bias && !config.gains_less_one);
    let expected = (1..=LAYERS).map(|n| LayerAttention {
        window: None,
        rotation: match n % 4 {
            0 => LayerRotation::None,
            _ => LayerRotation::Main,
        },
    });
    assert_eq!(config.attention, expected.collect::<Vec<_>>());

    let text = fs::read_to_string(dir.path().join("sub/out/config.json")).expect("readable");
    let written: Value = serde_json::from_str(&text).expect("JSON");
    for (field, value) in [
        ("architectures", json!(["SmolLM3ForCausalLM"])),
        ("model_type", json!("smollm3")),
        ("no_rope_layers", json!([1, 1, 1, 0, 1, 1, 1, 0, 1])),
        ("no_rope_layer_interval", json!(4)),
        ("use_sliding_window", json!(false)),
        ("hidden_act", json!("silu")),
    ] {
        assert_eq!(written[field], value, "{field}");
    }
    let mut weights = model.weights().expect("sound");
    for (name, shape) in config.expected_tensors() {
        weights.take(&name, &shape).expect("there");
    }
    weights.finish().expect("nothing more");
}

/// Converters reorder them in every layer, with positions or without.
#[test]
fn rows_of_queries_and_keys_are_put_back_in_order() {
    let mut gguf = tiny_model("smollm3");
    gguf.set_layers("smollm3", 4);
    let (_dir, model) = imported(&gguf, &F32);
    let mut weights = model.weights().expect("sound");
    for layer in [0, 3] {
        for (name, short, heads) in [("q_proj", "attn_q", 2), ("k_proj", "attn_k", 1)] {
            let source = values(&gguf, &format!("blk.{layer}.{short}.weight"));
            let name = format!("model.layers.{layer}.self_attn.{name}.weight");
            let got = weights.take(&name, &[32 * heads, 64]).expect("there");
            let got = got.to_f32();
            for row in 0..32 * heads {
                let (head, within) = (row / 32, row % 32);
                let from = head * 32 + within % 16 * 2 + within / 16;
                assert_eq!(got[row * 64..][..64], source[from * 64..][..64], "{name}");
            }
        }
        let name = format!("model.layers.{layer}.self_attn.v_proj.weight");
        let got = weights.take(&name, &[32, 64]).expect("there").to_f32();
        assert_eq!(got, values(&gguf, &format!("blk.{layer}.attn_v.weight")));
    }
}

/// A rule of its own, by which converters tell texts without a beginning token.
#[test]
fn its_texts_have_no_beginning_token() {
    let (_dir, model) = imported(&tiny_model("smollm3"), &F32);
    let encode = |text: &str| model.tokenizer().encode(text, true).expect("encodes");
    assert_eq!(encode("a1234"), [97, 49, 50, 51, 52]);
    assert_eq!(encode("<|start|>a"), [256, 97]);
}

#[test]
fn a_list_of_windows_is_refused() {
    let key = "smollm3.attention.sliding_window_pattern";
    let mut gguf = tiny_model("smollm3");
    gguf.set(key, Meta::U32(4));
    assert!(matches!(refused(&gguf), GgufError::Unsupported { key: named, .. } if named == key));
}
