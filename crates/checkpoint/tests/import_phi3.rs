//! Importing GGUF: Phi-3, its fused tensors, its windows and LongRoPE.
//!
//! What comes out is held against the Hugging Face directory of the same weights, written here by hand.

mod support;

use std::fs;

use serde_json::{Value, json};
use sparse_accelerate_checkpoint::{Architecture, CheckpointError, GgufError, ModelDir};
use support::gguf_file::{GgufBuilder, Meta, Tensor, tiny_model};
use support::import::{F32, import, imported, refused, values};
use support::{put, safetensors_f32};

const SHORT: &str = "rope_factors_short.weight";
const LONG: &str = "rope_factors_long.weight";
const ATTENTION: &str = "phi3.rope.scaling.attn_factor";
const ORIGINAL: &str = "phi3.rope.scaling.original_context_length";
const ROTATED: &str = "phi3.rope.dimension_count";
const WINDOW: &str = "phi3.attention.sliding_window";
/// Pairs of 24 rotated elements, of the 32 that a head has.
const PAIRS: usize = 12;

/// Divisors of which f32 holds none exactly.
fn divisors(first: f32) -> Vec<f32> {
    (0..PAIRS).map(|pair| first + 0.1 * pair as f32).collect()
}

/// The tiny model with LongRoPE from 16 tokens to 128, on three quarters of a head.
fn longrope() -> GgufBuilder {
    let mut gguf = tiny_model("phi3");
    gguf.set(ROTATED, Meta::U32(2 * PAIRS as u32));
    gguf.set(ATTENTION, Meta::F32(1.75f64.sqrt() as f32));
    gguf.add(LONG, &[PAIRS as u64], &divisors(2.3));
    gguf.add(SHORT, &[PAIRS as u64], &divisors(1.01));
    gguf
}

/// The fields of Phi-3's own directories besides the sizes of a tiny model, with edits.
fn config(edits: Value) -> Value {
    let mut config = support::llama_config();
    for (field, value) in [
        ("architectures", json!(["Phi3ForCausalLM"])),
        ("model_type", json!("phi3")),
        ("num_hidden_layers", json!(1)),
        ("vocab_size", json!(260)),
        ("torch_dtype", json!("float32")),
        ("original_max_position_embeddings", json!(16)),
        ("attention_bias", json!(false)),
        ("sliding_window", Value::Null),
        ("rope_scaling", Value::Null),
    ] {
        config[field] = value;
    }
    for (field, value) in edits.as_object().expect("an object") {
        config[field] = value.clone();
    }
    config
}

/// Hugging Face names of a tied tiny model, with GGUF's.
const NAMES: [(&str, &str, &[usize]); 8] = [
    ("model.embed_tokens.weight", "token_embd.weight", &[260, 64]),
    ("model.norm.weight", "output_norm.weight", &[64]),
    (
        "model.layers.0.self_attn.qkv_proj.weight",
        "blk.0.attn_qkv.weight",
        &[128, 64],
    ),
    (
        "model.layers.0.self_attn.o_proj.weight",
        "blk.0.attn_output.weight",
        &[64, 64],
    ),
    (
        "model.layers.0.mlp.gate_up_proj.weight",
        "blk.0.ffn_up.weight",
        &[192, 64],
    ),
    (
        "model.layers.0.mlp.down_proj.weight",
        "blk.0.ffn_down.weight",
        &[64, 96],
    ),
    (
        "model.layers.0.input_layernorm.weight",
        "blk.0.attn_norm.weight",
        &[64],
    ),
    (
        "model.layers.0.post_attention_layernorm.weight",
        "blk.0.ffn_norm.weight",
        &[64],
    ),
];

/// Imports a file and holds the result against the directory that `config` begins: fields of the file, what they mean, and values.
fn assert_same(gguf: &GgufBuilder, config: &Value) {
    let (dir, model) = imported(gguf, &F32);
    let text = fs::read_to_string(dir.path().join("sub/out/config.json")).expect("readable");
    let parsed = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    let (written, config) = (parsed(&text), &parsed(&config.to_string()));
    for (field, value) in config.as_object().expect("an object") {
        assert_eq!(&written[field], value, "{field}");
    }

    let own = tempfile::tempdir().expect("a temporary directory");
    put(own.path(), "config.json", config.to_string().as_bytes());
    put(
        own.path(),
        "tokenizer.json",
        support::byte_tokenizer().to_string().as_bytes(),
    );
    let stored: Vec<_> = NAMES
        .iter()
        .map(|(name, short, shape)| (*name, *shape, values(gguf, short)))
        .collect();
    let tensors: Vec<_> = stored
        .iter()
        .map(|(name, shape, values)| (*name, *shape, values.as_slice()))
        .collect();
    put(own.path(), "model.safetensors", &safetensors_f32(&tensors));
    let own = ModelDir::open(own.path()).map(|model| (model.config().clone(), model.weights()));
    let (expected, weights) = own.expect("a sound directory");
    assert_eq!(model.config(), &expected);
    assert_eq!(expected.architecture, Architecture::Phi3);

    let (mut weights, mut got) = (weights.expect("sound"), model.weights().expect("sound"));
    assert_eq!(expected.expected_tensors().len(), NAMES.len());
    for (name, shape) in expected.expected_tensors() {
        let bits = |weights: &mut sparse_accelerate_checkpoint::Weights| {
            let view = weights.take(&name, &shape).expect("there");
            let values = view.to_f32();
            values.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        };
        assert_eq!(bits(&mut got), bits(&mut weights), "{name}");
    }
    got.finish().expect("nothing more");
}

#[test]
fn a_phi3_is_the_directory_it_was_made_from() {
    assert_same(&tiny_model("phi3"), &config(json!({})));
    // A whole head where the file does not say how much of it is rotated.
    let mut gguf = tiny_model("phi3");
    gguf.metadata.retain(|(key, _)| key != ROTATED);
    assert_same(&gguf, &config(json!({})));
}

#[test]
fn its_window_is_that_of_every_layer() {
    for keys in [40, 262_144] {
        let mut gguf = tiny_model("phi3");
        gguf.set(WINDOW, Meta::U32(keys));
        assert_same(&gguf, &config(json!({ "sliding_window": keys })));
        let (_dir, model) = imported(&gguf, &F32);
        assert_eq!(model.config().common_window(), Some(keys as usize));
    }
}

#[test]
fn longrope_comes_with_its_lists_and_its_part_of_a_head() {
    let wide = |list: Vec<f32>| list.into_iter().map(f64::from).collect::<Vec<_>>();
    let expected = config(json!({
        "partial_rotary_factor": 0.75,
        "rope_scaling": {
            "type": "longrope", "short_factor": wide(divisors(1.01)), "long_factor": wide(divisors(2.3)),
        },
    }));
    assert_same(&longrope(), &expected);
    // To the last digit, whatever reading makes of it.
    let (dir, _) = imported(&longrope(), &F32);
    let text = fs::read_to_string(dir.path().join("sub/out/config.json")).expect("readable");
    for divisor in wide(divisors(1.01)).into_iter().chain(wide(divisors(2.3))) {
        assert!(text.contains(&format!(" {divisor:?}")), "{divisor}");
    }
    // A type says no more than the lists, nor does a stretch of 1.
    let mut gguf = longrope();
    gguf.set("phi3.rope.scaling.type", Meta::Text("longrope".into()));
    gguf.set("phi3.rope.scaling.factor", Meta::F32(1.0));
    assert_same(&gguf, &expected);

    // No stretch at all: short lists throughout.
    let mut gguf = longrope();
    gguf.set(ORIGINAL, Meta::U32(128));
    gguf.set(ATTENTION, Meta::F32(1.0));
    let mut expected = expected;
    expected["original_max_position_embeddings"] = json!(128);
    assert_same(&gguf, &expected);
}

#[test]
fn an_output_table_of_its_own_is_kept() {
    let mut gguf = tiny_model("phi3");
    gguf.add("output.weight", &[64, 260], &vec![0.5; 64 * 260]);
    let (_dir, model) = imported(&gguf, &F32);
    assert!(!model.config().tied_embeddings);
    let mut weights = model.weights().expect("sound");
    let head = weights.take("lm_head.weight", &[260, 64]).expect("there");
    assert_eq!(head.to_f32()[0], 0.5);
}

/// The refusal of a file: what it names, and that it has a way out.
fn contradiction(gguf: &GgufBuilder, named: &str, words: &[&str]) {
    let error = refused(gguf);
    assert!(
        matches!(&error, GgufError::Contradiction { key, .. } if key == named),
        "{error}"
    );
    let text = error.to_string();
    for word in words.iter().chain(&["Hugging Face directory"]) {
        assert!(text.contains(word), "{word}: {text}");
    }
}

fn without(gguf: &mut GgufBuilder, name: &str) -> Tensor {
    let at = gguf.tensors.iter().position(|tensor| tensor.name == name);
    gguf.tensors.remove(at.expect("there"))
}

#[test]
fn lists_that_do_not_fit_are_refused() {
    for (absent, there) in [(SHORT, LONG), (LONG, SHORT)] {
        let mut gguf = longrope();
        without(&mut gguf, absent);
        contradiction(&gguf, absent, &["missing", "12 divisors", there]);

        let mut gguf = longrope();
        without(&mut gguf, absent);
        gguf.add(absent, &[16], &[1.0; 16]);
        contradiction(&gguf, absent, &["[16]", "[12]", "24 rotated"]);
        let mut gguf = longrope();
        without(&mut gguf, absent);
        gguf.add(absent, &[PAIRS as u64, 2], &[1.0; 2 * PAIRS]);
        contradiction(&gguf, absent, &["[12, 2]", "[12]"]);

        for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let mut gguf = longrope();
            without(&mut gguf, absent);
            let mut list = divisors(1.5);
            list[7] = bad;
            gguf.add(absent, &[PAIRS as u64], &list);
            contradiction(&gguf, absent, &[&format!("{bad} for pair 7"), "above zero"]);
        }
    }
    // A whole head of 32 has 16 pairs.
    let mut gguf = longrope();
    gguf.set(ROTATED, Meta::U32(32));
    contradiction(&gguf, SHORT, &["[12]", "[16]"]);
}

#[test]
fn lists_without_what_belongs_to_them_are_refused() {
    for key in [ORIGINAL, ATTENTION] {
        let mut gguf = longrope();
        gguf.metadata.retain(|(name, _)| name != key);
        contradiction(&gguf, key, &["missing"]);
    }
    for bad in [0, 1, 268_435_457] {
        let mut gguf = longrope();
        gguf.set(ORIGINAL, Meta::U32(bad));
        contradiction(&gguf, ORIGINAL, &[&bad.to_string(), "2..=268435456"]);
    }
    let implied = 1.75f64.sqrt();
    // Of YaRN, which the first files of the family have, of no stretch, of another, and what is close to right.
    for bad in [
        0.1 * 8f64.ln() + 1.0,
        1.0,
        1.5,
        implied * 1.00001,
        -implied,
        0.0,
    ] {
        let mut gguf = longrope();
        gguf.set(ATTENTION, Meta::F32(bad as f32));
        let got = f64::from(bad as f32).to_string();
        contradiction(&gguf, ATTENTION, &[&got, "1.3228", "16", "128"]);
    }
    let mut gguf = longrope();
    gguf.set(ATTENTION, Meta::Text("1.3".into()));
    assert!(matches!(refused(&gguf), GgufError::ValueType { .. }));
}

#[test]
fn a_second_scaling_beside_the_lists_is_refused() {
    for kind in ["yarn", "linear", "none"] {
        let mut gguf = longrope();
        gguf.set("phi3.rope.scaling.type", Meta::Text(kind.into()));
        contradiction(&gguf, "phi3.rope.scaling.type", &[kind, "longrope", SHORT]);
    }
    for name in ["scaling.factor", "scale_linear"] {
        let key = format!("phi3.rope.{name}");
        let mut gguf = longrope();
        gguf.set(&key, Meta::F32(8.0));
        contradiction(&gguf, &key, &["8", LONG]);
    }
    let mut gguf = longrope();
    gguf.add("rope_freqs.weight", &[12], &[1.0; 12]);
    contradiction(&gguf, "rope_freqs.weight", &[SHORT]);
}

#[test]
fn a_scaling_that_lacks_its_lists_is_refused() {
    let mut gguf = tiny_model("phi3");
    gguf.set("phi3.rope.scaling.type", Meta::Text("longrope".into()));
    contradiction(&gguf, "phi3.rope.scaling.type", &[SHORT, LONG, "missing"]);
    let mut gguf = tiny_model("phi3");
    gguf.set(ATTENTION, Meta::F32(1.19));
    contradiction(&gguf, ATTENTION, &["1.19", SHORT]);
    gguf.set(ATTENTION, Meta::F32(1.0));
    assert!(import(&gguf, &F32).1.is_ok());
}

#[test]
fn a_part_of_a_head_that_cannot_be_rotated_is_refused() {
    for bad in [0, 1, 7, 34, u32::MAX] {
        let mut gguf = tiny_model("phi3");
        gguf.set(ROTATED, Meta::U32(bad));
        contradiction(&gguf, ROTATED, &[&bad.to_string(), "2..=32"]);
    }
    let mut gguf = tiny_model("phi3");
    gguf.set("phi3.attention.value_length", Meta::U32(16));
    assert!(matches!(refused(&gguf), GgufError::Unsupported { .. }));
}

/// Its models have windows of their own, which files of before the key do not tell.
#[test]
fn a_file_that_does_not_say_whether_it_has_a_window_is_refused() {
    let mut gguf = tiny_model("phi3");
    gguf.metadata.retain(|(key, _)| key != WINDOW);
    let error = refused(&gguf);
    assert!(
        matches!(&error, GgufError::Unsupported { key, got, .. } if key == WINDOW && got == "missing"),
        "{error}"
    );
    assert!(error.to_string().contains("Hugging Face"), "{error}");
    gguf.set(WINDOW, Meta::U32(u32::MAX));
    let error = import(&gguf, &F32).1.expect_err("too many keys");
    assert!(matches!(error, CheckpointError::Config(_)), "{error}");
}

#[test]
fn tensors_of_other_families_are_refused() {
    for name in ["attn_qkv", "attn_output", "ffn_up", "ffn_down"] {
        let mut gguf = tiny_model("phi3");
        gguf.add(&format!("blk.0.{name}.bias"), &[64], &[1.0; 64]);
        let error = refused(&gguf);
        assert!(
            matches!(&error, GgufError::UnexpectedTensor { name: named } if named.contains(name)),
            "{error}"
        );
    }
    let mut gguf = tiny_model("phi3");
    without(&mut gguf, "blk.0.ffn_up.weight");
    gguf.add("blk.0.ffn_up.weight", &[64, 96], &[1.0; 64 * 96]);
    gguf.add("blk.0.ffn_gate.weight", &[64, 96], &[1.0; 64 * 96]);
    assert!(
        matches!(refused(&gguf), GgufError::TensorShape { name, .. } if name == "blk.0.ffn_up.weight")
    );
    // Nor has another family Phi-3's lists.
    for name in [SHORT, LONG] {
        let mut gguf = tiny_model("llama");
        gguf.add(name, &[16], &[1.0; 16]);
        assert!(matches!(refused(&gguf), GgufError::UnexpectedTensor { .. }));
    }
}
