//! Importing GGUF: Gemma 3, the gains of its norms, its windows, its two rotations and its vocabulary.
//!
//! The result is held against the Hugging Face directory of the same weights, written here by hand.

mod support;

use std::fs;

use serde_json::{Value, json};
use sparse_accelerate_checkpoint::{
    Activation, Architecture, GgufError, ImportOptions, LayerRotation, ModelDir, RopeScaling,
    WeightDtype, Weights,
};
use support::gguf_file::{GgufBuilder, Meta, tiny_model};
use support::import::{F32, import, imported, refused, values};
use support::tokenizer::{encoded, sentence_piece_group, streamed};
use support::{put, safetensors_f32};

const PATTERN: &str = "gemma3.attention.sliding_window_pattern";
const WINDOW: &str = "gemma3.attention.sliding_window";
const LAYERS: usize = 7;

fn gemma3() -> GgufBuilder {
    let mut gguf = tiny_model("gemma3");
    gguf.set_layers("gemma3", LAYERS);
    gguf.set("gemma3.rope.freq_base", Meta::F32(1e6));
    gguf
}

/// The fields of Gemma 3's own directories with the sizes of a tiny model.
fn config() -> Value {
    json!({
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "attention_bias": false,
        "bos_token_id": 256,
        "eos_token_id": 257,
        "head_dim": 64,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 64,
        "intermediate_size": 96,
        "max_position_embeddings": 128,
        "num_attention_heads": 2,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": 1,
        "query_pre_attn_scalar": 64,
        "rms_norm_eps": 1e-5,
        "rope_local_base_freq": 10000.0,
        "rope_theta": 1e6,
        "sliding_window": 16,
        "torch_dtype": "float32",
        "vocab_size": 260,
    })
}

/// Parts of a layer's names in Hugging Face and GGUF files, and shapes; those of one dimension are gains.
const PARTS: [(&str, &str, &[usize]); 13] = [
    ("self_attn.q_proj", "attn_q", &[128, 64]),
    ("self_attn.k_proj", "attn_k", &[64, 64]),
    ("self_attn.v_proj", "attn_v", &[64, 64]),
    ("self_attn.o_proj", "attn_output", &[64, 128]),
    ("mlp.gate_proj", "ffn_gate", &[96, 64]),
    ("mlp.up_proj", "ffn_up", &[96, 64]),
    ("mlp.down_proj", "ffn_down", &[64, 96]),
    ("input_layernorm", "attn_norm", &[64]),
    ("post_attention_layernorm", "post_attention_norm", &[64]),
    ("pre_feedforward_layernorm", "ffn_norm", &[64]),
    ("post_feedforward_layernorm", "post_ffw_norm", &[64]),
    ("self_attn.q_norm", "attn_q_norm", &[64]),
    ("self_attn.k_norm", "attn_k_norm", &[64]),
];

/// Every tensor of the directory: names in both, and shapes.
fn tensors() -> Vec<(String, String, &'static [usize])> {
    let ends: [(&str, &str, &[usize]); 2] = [
        ("model.embed_tokens", "token_embd", &[260, 64]),
        ("model.norm", "output_norm", &[64]),
    ];
    let ends = ends.map(|(name, short, shape)| (name.to_owned(), short.to_owned(), shape));
    let layers = (0..LAYERS).flat_map(|layer| {
        PARTS.iter().map(move |(name, short, shape)| {
            let name = format!("model.layers.{layer}.{name}");
            (name, format!("blk.{layer}.{short}"), *shape)
        })
    });
    let all = ends.into_iter().chain(layers);
    all.map(|(name, short, shape)| (name + ".weight", short + ".weight", shape))
        .collect()
}

/// Values as the directory has them: gains less one.
fn own_values(gguf: &GgufBuilder, short: &str, shape: &[usize]) -> Vec<f32> {
    let offset = if shape.len() == 1 { 1.0 } else { 0.0 };
    let stored = values(gguf, short);
    stored.into_iter().map(|value| value - offset).collect()
}

#[test]
fn a_gemma3_is_the_directory_it_was_made_from() {
    let gguf = gemma3();
    let own = tempfile::tempdir().expect("a temporary directory");
    put(own.path(), "config.json", config().to_string().as_bytes());
    let tokenizer = support::byte_tokenizer().to_string();
    put(own.path(), "tokenizer.json", tokenizer.as_bytes());
    let stored: Vec<_> = tensors()
        .into_iter()
        .map(|(name, short, shape)| (name, shape, own_values(&gguf, &short, shape)))
        .collect();
    let all: Vec<_> = stored
        .iter()
        .map(|(name, shape, values)| (name.as_str(), *shape, values.as_slice()))
        .collect();
    put(own.path(), "model.safetensors", &safetensors_f32(&all));
    let own = ModelDir::open(own.path()).map(|model| (model.config().clone(), model.weights()));
    let (expected, weights) = own.expect("a sound directory");

    let (dir, model) = imported(&gguf, &F32);
    assert_eq!(model.config(), &expected);
    assert_eq!(expected.architecture, Architecture::Gemma3);
    assert_eq!(expected.activation, Activation::GeluTanh);
    assert!(expected.gains_less_one && expected.sandwich_norms && expected.tied_embeddings);
    let text = fs::read_to_string(dir.path().join("sub/out/config.json")).expect("readable");
    let written: Value = serde_json::from_str(&text).expect("JSON");
    for (field, value) in config().as_object().expect("an object") {
        assert_eq!(&written[field], value, "{field}");
    }

    let (mut weights, mut got) = (weights.expect("sound"), model.weights().expect("sound"));
    assert_eq!(expected.expected_tensors().len(), all.len());
    for (name, shape) in expected.expected_tensors() {
        let bits = |weights: &mut Weights| {
            let values = weights.take(&name, &shape).expect("there").to_f32();
            values.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        };
        assert_eq!(bits(&mut got), bits(&mut weights), "{name}");
    }
    got.finish().expect("nothing more");
}

/// Released in bf16, stored as f32 with one added.
#[test]
fn gains_come_back_as_they_were_released() {
    let released: Vec<f32> = (0..64)
        .map(|n| f32::from_bits((0x3d00 + 13 * n) << 16) * if n % 3 == 0 { -1.0 } else { 1.0 })
        .collect();
    let name = "blk.0.post_ffw_norm.weight";
    let mut gguf = tiny_model("gemma3");
    gguf.tensors.retain(|tensor| tensor.name != name);
    let stored: Vec<f32> = released.iter().map(|gain| gain + 1.0).collect();
    gguf.add(name, &[64], &stored);
    let options = ImportOptions {
        dtype: WeightDtype::Bf16,
        tie: false,
    };
    let (_dir, model) = imported(&gguf, &options);
    let mut weights = model.weights().expect("sound");
    let name = "model.layers.0.post_feedforward_layernorm.weight";
    let got = weights.take(name, &[64]).expect("there").to_f32();
    assert_eq!(got, released);
}

fn windows(gguf: &GgufBuilder) -> Vec<bool> {
    let (_dir, model) = imported(gguf, &F32);
    let layers = model.config().attention.iter();
    layers
        .map(|layer| {
            let local = layer.rotation == LayerRotation::Local;
            assert_eq!(layer.window, local.then_some(16));
            local
        })
        .collect()
}

#[test]
fn layers_have_windows_as_the_file_says_or_five_of_six() {
    let with = |pattern: Option<Meta>| {
        let mut gguf = gemma3();
        if let Some(pattern) = pattern {
            gguf.set(PATTERN, pattern);
        }
        windows(&gguf)
    };
    let every = |every: usize| (1..=LAYERS).map(|n| n % every != 0).collect::<Vec<_>>();
    assert_eq!(with(None), every(6));
    for n in [1, 2, 6, 7, 100] {
        assert_eq!(with(Some(Meta::U32(n))), every(n as usize));
    }
    let flags = [1, 0, 0, 1, 1, 0, 1];
    let expected = flags.map(|flag| flag == 1);
    assert_eq!(with(Some(Meta::I32s(flags.to_vec()))), expected);
    let bools = [
        &7u32.to_le_bytes()[..],
        &7u64.to_le_bytes(),
        &[1, 0, 0, 1, 1, 0, 1],
    ]
    .concat();
    assert_eq!(with(Some(Meta::Raw(9, bools))), expected);

    for (bad, got) in [
        (Meta::U32(0), "0"),
        (Meta::Text("6".into()), "string"),
        (Meta::Bool(true), "bool"),
        (Meta::I32s(vec![1; 6]), "6 entries for 7 layers"),
        (Meta::I32s(vec![2; 7]), "7 entries for 7 layers"),
        (Meta::I32s(Vec::new()), "0 entries"),
        (Meta::Raw(5, (-6i32).to_le_bytes().to_vec()), "-6"),
    ] {
        let mut gguf = gemma3();
        gguf.set(PATTERN, bad);
        let error = refused(&gguf);
        assert!(
            matches!(&error, GgufError::Unsupported { key, .. } if key == PATTERN),
            "{error}"
        );
        assert!(error.to_string().contains(got), "{error}");
    }
}

#[test]
fn without_a_window_every_layer_has_the_rotation_of_the_model() {
    for window in [None, Some(0)] {
        let mut gguf = gemma3();
        gguf.metadata.retain(|(key, _)| key != WINDOW);
        if let Some(keys) = window {
            gguf.set(WINDOW, Meta::U32(keys));
        }
        gguf.set("gemma3.rope.scaling.type", Meta::Text("yarn".into()));
        gguf.set("gemma3.rope.scaling.factor", Meta::F32(4.0));
        gguf.set("gemma3.rope.scaling.original_context_length", Meta::U32(32));
        assert_eq!(windows(&gguf), [false; LAYERS]);
        let (_dir, model) = imported(&gguf, &F32);
        assert!(matches!(
            model.config().rope_scaling,
            Some(RopeScaling::Yarn(_))
        ));
    }
}

#[test]
fn layers_with_a_window_have_a_rotation_of_their_own() {
    let mut gguf = gemma3();
    gguf.set("gemma3.rope.scaling.type", Meta::Text("linear".into()));
    gguf.set("gemma3.rope.scaling.factor", Meta::F32(8.0));
    let bases = |gguf: &GgufBuilder| {
        let (_dir, model) = imported(gguf, &F32);
        let config = model.config();
        let linear = Some(RopeScaling::Linear { factor: 8.0 });
        assert_eq!(config.rope_scaling, linear);
        (config.rope_theta, config.local_rope_theta)
    };
    assert_eq!(bases(&gguf), (1e6, 1e4));
    gguf.set("gemma3.rope.freq_base_swa", Meta::F32(20_000.0));
    assert_eq!(bases(&gguf), (1e6, 2e4));

    // Of others llama.cpp and transformers make different things.
    gguf.set("gemma3.rope.scaling.type", Meta::Text("yarn".into()));
    let error = refused(&gguf);
    assert!(
        matches!(&error, GgufError::Unsupported { key, .. } if key == "gemma3.rope.scaling.type"),
        "{error}"
    );
    assert!(error.to_string().contains("Hugging Face"), "{error}");
}

#[test]
fn the_scale_of_scores_is_another_with_62_layers() {
    for (layers, scalar) in [(1, 64.0), (LAYERS, 64.0), (61, 64.0), (62, 32.0)] {
        let mut gguf = tiny_model("gemma3");
        gguf.set_layers("gemma3", layers);
        let (_dir, model) = imported(&gguf, &F32);
        assert_eq!(model.config().query_scalar, scalar);
    }
    // Whole elements, rounded down, and no heads at all.
    for heads in [0, 3, 65] {
        let mut gguf = tiny_model("gemma3");
        gguf.set_layers("gemma3", 62);
        gguf.set("gemma3.attention.head_count", Meta::U32(heads));
        assert!(import(&gguf, &F32).1.is_err());
    }
}

#[test]
fn a_vision_part_is_refused_by_name() {
    let mut gguf = gemma3();
    gguf.set("gemma3.vision.block_count", Meta::U32(27));
    let error = refused(&gguf).to_string();
    assert!(
        error.contains("gemma3.vision.block_count") && error.contains("text model alone"),
        "{error}"
    );
    for name in ["mm.input_projection.weight", "v.patch_embd.weight"] {
        let mut gguf = gemma3();
        gguf.add(name, &[64, 64], &[1.0; 64 * 64]);
        assert!(
            matches!(refused(&gguf), GgufError::UnexpectedTensor { name: named } if named == name)
        );
    }
}

#[test]
fn tensors_of_a_gemma3_that_lack_or_have_another_shape() {
    for (_, short, _) in PARTS {
        let name = format!("blk.3.{short}.weight");
        let mut gguf = gemma3();
        gguf.tensors.retain(|tensor| tensor.name != name);
        assert!(
            matches!(refused(&gguf), GgufError::MissingTensor { name: named } if named == name)
        );
        gguf.add(&name, &[32], &[1.0; 32]);
        assert!(
            matches!(refused(&gguf), GgufError::TensorShape { name: named, .. } if named == name)
        );
    }
    let mut gguf = gemma3();
    gguf.add("blk.0.attn_q.bias", &[128], &[1.0; 128]);
    assert!(matches!(refused(&gguf), GgufError::UnexpectedTensor { .. }));
}

/// Runs of spaces, line ends and tabs are tokens of their own, the longest first.
#[test]
fn ids_are_those_of_sentence_piece() {
    let mut fixture = sentence_piece_group("gemma");
    let begin = fixture.add("<start_of_turn>", 3, -1000.0);
    let end = fixture.add("<end_of_turn>", 3, -1000.0);
    let mut gguf = fixture.gguf_of("gemma3");
    gguf.set("tokenizer.ggml.add_space_prefix", Meta::Bool(false));
    gguf.set("tokenizer.ggml.add_bos_token", Meta::Bool(true));
    gguf.set(
        "tokenizer.chat_template",
        Meta::Text(
            "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m.content }}<end_of_turn>\n{% endfor %}"
                .into(),
        ),
    );
    let (_dir, model) = imported(&gguf, &F32);
    let tokenizer = model.tokenizer();
    assert!(fixture.cases.len() > 150);
    for case in &fixture.cases {
        let got = encoded(tokenizer, &case.text);
        assert_eq!(got, case.ids, "{:?}", case.text);
        let text = case.text.replace('\u{2581}', " ");
        assert_eq!(tokenizer.decode(&got, true).expect("decodes"), text);
        assert_eq!(streamed(tokenizer, &got), text);
    }
    let the = fixture.ids("the", false);
    let turn = "<start_of_turn>the<end_of_turn>";
    let expected = [&[1, begin][..], &the, &[end]].concat();
    assert_eq!(tokenizer.encode(turn, true).expect("encodes"), expected);
    assert!(tokenizer.is_special(begin) && tokenizer.is_special(end));
    assert_eq!(model.generation().eos, [2, end]);
}
