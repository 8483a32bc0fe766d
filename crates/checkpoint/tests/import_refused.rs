//! Importing GGUF: what is refused, and that a refused import leaves nothing behind.
//!
//! Each bad file is the sound tiny model with a single edit.

mod support;

use std::fs;

use sparse_accelerate_checkpoint::{
    CheckpointError, GgufError, ImportOptions, WeightDtype, import_gguf,
};
use support::gguf_file::{Meta, tiny_model, tiny_sentence_piece};
use support::import::{F32, import, listing, refused};
use support::put;

#[test]
fn numbers_that_change_a_model_are_refused_unless_they_do_nothing() {
    for family in ["llama", "gemma3"] {
        for (name, neutral) in [
            ("attention.scale", 0.0),
            ("attention.clamp_kqv", 0.0),
            ("attention.max_alibi_bias", 0.0),
            ("attn_logit_softcapping", 0.0),
            ("final_logit_softcapping", 0.0),
            ("logit_scale", 1.0),
            ("embedding_scale", 1.0),
            ("residual_scale", 1.0),
        ] {
            let key = format!("{family}.{name}");
            let mut gguf = tiny_model(family);
            for nothing in [0.0, neutral] {
                gguf.set(&key, Meta::F32(nothing));
                assert!(import(&gguf, &F32).1.is_ok(), "{key} {nothing}");
            }
            gguf.set(&key, Meta::F32(0.25));
            let error = refused(&gguf);
            assert!(
                matches!(&error, GgufError::Unsupported { key: named, .. } if *named == key),
                "{error}"
            );
        }
        let key = format!("{family}.attention.causal");
        let mut gguf = tiny_model(family);
        gguf.set(&key, Meta::Bool(true));
        assert!(import(&gguf, &F32).1.is_ok());
        gguf.set(&key, Meta::Bool(false));
        assert!(refused(&gguf).to_string().contains(&key));
    }
}

#[test]
fn metadata_that_is_not_supported_is_refused() {
    for (key, value) in [
        ("general.architecture", Meta::Text("gemma".into())),
        ("general.architecture", Meta::Text("gemma2".into())),
        ("general.architecture", Meta::Text("gemma3n".into())),
        ("general.architecture", Meta::Text("clip".into())),
        ("general.type", Meta::Text("mmproj".into())),
        ("general.type", Meta::Text("adapter".into())),
        ("llama.vision.block_count", Meta::U32(27)),
        ("general.architecture", Meta::Text("phimoe".into())),
        ("tokenizer.ggml.pre", Meta::Text("default".into())),
        ("tokenizer.ggml.model", Meta::Text("t5".into())),
        ("llama.rope.scaling.type", Meta::Text("longrope".into())),
        ("llama.rope.scaling.factor", Meta::F32(0.5)),
        ("llama.rope.scale_linear", Meta::F32(-2.0)),
        ("llama.rope.dimension_count", Meta::U32(16)),
        ("llama.expert_count", Meta::U32(8)),
        ("llama.attention.sliding_window_pattern", Meta::U32(2)),
        ("split.count", Meta::U32(2)),
    ] {
        let mut gguf = tiny_model("llama");
        gguf.set(key, value);
        let error = refused(&gguf);
        assert!(
            matches!(&error, GgufError::Unsupported { key: named, .. } if named == key),
            "{error}"
        );
    }
    for family in ["qwen2", "qwen3", "smollm3"] {
        let key = format!("{family}.attention.sliding_window");
        let mut gguf = tiny_model(family);
        // Of a context of 128.
        gguf.set(&key, Meta::U32(128));
        assert!(import(&gguf, &F32).1.is_ok());
        gguf.set(&key, Meta::U32(64));
        assert!(
            matches!(refused(&gguf), GgufError::Unsupported { key: named, .. } if named == key)
        );
    }
    let mut gguf = tiny_model("llama");
    gguf.set("llama.attention.sliding_window", Meta::I32s(vec![64, 0]));
    assert!(matches!(refused(&gguf), GgufError::ValueType { .. }));
}

#[test]
fn what_can_only_be_listed_is_refused_by_name() {
    let mut gguf = tiny_model("llama");
    let at = gguf
        .tensors
        .iter()
        .position(|tensor| tensor.name == "blk.0.ffn_down.weight");
    let tensor = &mut gguf.tensors[at.expect("there")];
    (tensor.kind, tensor.data) = (39, vec![0; 96 * 64 / 32 * 17]);
    let error = refused(&gguf);
    assert!(
        matches!(&error, GgufError::TensorType { name, got }
            if name == "blk.0.ffn_down.weight" && got == "39 (MXFP4)"),
        "{error}"
    );
    for supported in ["F32", "BF16", "Q2_K", "Q4_K", "IQ4_XS"] {
        assert!(error.to_string().contains(supported), "{error}");
    }

    let dir = tempfile::tempdir().expect("a temporary directory");
    let empty = [&b"GGUF"[..], &3u32.to_be_bytes(), &[0; 56]].concat();
    put(dir.path(), "x.gguf", &empty);
    let (from, to) = (dir.path().join("x.gguf"), dir.path().join("out"));
    let error = import_gguf(&from, &to, &F32, &mut |_| {});
    assert!(matches!(
        error,
        Err(CheckpointError::Gguf {
            source: GgufError::BigEndian,
            ..
        })
    ));
}

#[test]
fn a_bias_that_only_some_layers_lack_is_missing() {
    for (architecture, biases) in [("llama", &["attn_q"][..]), ("qwen2", &[])] {
        let mut gguf = tiny_model(architecture);
        gguf.tensors
            .retain(|tensor| !tensor.name.ends_with(".bias"));
        gguf.set_layers(architecture, 2);
        for part in biases {
            gguf.add(&format!("blk.0.{part}.bias"), &[64], &[1.0; 64]);
        }
        let error = refused(&gguf);
        assert!(
            matches!(&error, GgufError::MissingTensor { name } if name.ends_with("attn_q.bias")),
            "{error}"
        );
    }
}

#[test]
fn metadata_that_is_missing_is_named() {
    for key in [
        "general.architecture",
        "llama.block_count",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.merges",
    ] {
        let mut gguf = tiny_model("llama");
        gguf.metadata.retain(|(name, _)| name != key);
        assert!(matches!(refused(&gguf), GgufError::MissingKey { key: named } if named == key));
    }
    let mut gguf = tiny_model("llama");
    gguf.set("llama.block_count", Meta::Text("1".into()));
    assert!(matches!(refused(&gguf), GgufError::ValueType { .. }));
}

#[test]
fn a_number_of_layers_beyond_any_model_is_refused() {
    for architecture in ["gemma3", "llama", "smollm3"] {
        let mut gguf = tiny_model(architecture);
        let key = format!("{architecture}.block_count");
        for bad in [1025, u64::MAX] {
            gguf.set(&key, Meta::Raw(10, bad.to_le_bytes().to_vec()));
            let error = refused(&gguf);
            assert!(
                matches!(&error, GgufError::Contradiction { key: named, .. } if *named == key),
                "{error}"
            );
            let text = error.to_string();
            assert!(
                text.contains(&bad.to_string()) && text.contains("1024"),
                "{text}"
            );
        }
    }
}

#[test]
fn a_vocabulary_that_contradicts_itself() {
    let edits: [(&str, Meta); 5] = [
        ("tokenizer.ggml.token_type", Meta::I32s(vec![1; 7])),
        ("tokenizer.ggml.token_type", Meta::I32s(vec![6; 260])),
        ("tokenizer.ggml.tokens", Meta::Texts(vec!["a".into(); 260])),
        ("tokenizer.ggml.merges", Meta::Texts(vec!["abc".into()])),
        ("tokenizer.ggml.eos_token_id", Meta::U32(260)),
    ];
    for (key, value) in edits {
        let mut gguf = tiny_model("llama");
        gguf.set(key, value);
        assert!(
            matches!(refused(&gguf), GgufError::Vocabulary { .. }),
            "{key}"
        );
    }
}

#[test]
fn a_file_cut_short_is_refused_wherever_it_ends() {
    for gguf in [
        tiny_model("qwen2"),
        tiny_model("phi3"),
        tiny_model("gemma3"),
        tiny_sentence_piece(),
    ] {
        let whole = gguf.bytes();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (from, to) = (dir.path().join("x.gguf"), dir.path().join("out"));
        for size in (0..whole.len()).step_by(whole.len() / 100) {
            put(dir.path(), "x.gguf", &whole[..size]);
            let error = import_gguf(&from, &to, &F32, &mut |_| {});
            assert!(
                matches!(error, Err(CheckpointError::Gguf { .. })),
                "{size}: {error:?}"
            );
            assert_eq!(listing(dir.path()), ["x.gguf"]);
        }
    }
}

#[test]
fn tensors_and_metadata_agree() {
    let mut gguf = tiny_model("llama");
    gguf.tensors
        .retain(|tensor| tensor.name != "blk.0.ffn_up.weight");
    assert!(
        matches!(refused(&gguf), GgufError::MissingTensor { name } if name == "blk.0.ffn_up.weight")
    );
    let mut gguf = tiny_model("llama");
    gguf.add("blk.0.attn_q_norm.weight", &[32], &[1.0; 32]);
    assert!(matches!(refused(&gguf), GgufError::UnexpectedTensor { .. }));
    let mut gguf = tiny_model("qwen3");
    gguf.tensors
        .retain(|tensor| tensor.name != "blk.0.attn_k_norm.weight");
    assert!(
        matches!(refused(&gguf), GgufError::MissingTensor { name } if name == "blk.0.attn_k_norm.weight")
    );
    let mut gguf = tiny_model("llama");
    gguf.set("llama.feed_forward_length", Meta::U32(64));
    assert!(matches!(refused(&gguf), GgufError::TensorShape { .. }));
}

/// A tensor under another type's number is smaller than its bytes: what is left over is no padding.
#[test]
fn bytes_that_no_tensor_claims_are_refused() {
    const Q4_1: u32 = 3;
    for name in ["blk.0.attn_norm.weight", "blk.0.ffn_up.weight"] {
        let mut gguf = tiny_model("llama");
        let mut tensors = gguf.tensors.iter_mut();
        let tensor = tensors.find(|tensor| tensor.name == name);
        tensor.expect("a tensor").kind = Q4_1;
        let error = refused(&gguf);
        assert!(
            matches!(&error, GgufError::TensorOffset { name: named, .. } if named == name),
            "{error}"
        );
        let text = error.to_string();
        assert!(text.contains("belong to no tensor"), "{text}");
    }
    // After the last tensor too.
    let mut gguf = tiny_model("llama");
    let last = gguf.tensors.last_mut().expect("a tensor");
    last.data.extend([0; 64]);
    assert!(matches!(refused(&gguf), GgufError::TensorOffset { .. }));
}

#[test]
fn a_config_that_could_not_be_loaded_is_refused_before_writing() {
    let mut gguf = tiny_model("llama");
    gguf.set("llama.attention.head_count", Meta::U32(8));
    let (dir, result) = import(&gguf, &F32);
    assert!(matches!(result, Err(CheckpointError::Config(_))));
    assert_eq!(listing(dir.path()), ["x.gguf"]);
}

#[test]
fn values_that_do_not_fit_end_the_import() {
    let mut gguf = tiny_model("llama");
    gguf.tensors[3].data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(matches!(refused(&gguf), GgufError::NonFinite { .. }));
    let mut gguf = tiny_model("llama");
    gguf.tensors[3].data[..4].copy_from_slice(&1e6f32.to_le_bytes());
    let (dir, result) = import(
        &gguf,
        &ImportOptions {
            dtype: WeightDtype::F16,
            tie: false,
        },
    );
    assert!(result.expect_err("beyond f16").to_string().contains("bf16"));
    assert_eq!(listing(dir.path()), ["x.gguf"]);
}

#[test]
fn the_destination_is_free_or_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    put(dir.path(), "x.gguf", &tiny_model("llama").bytes());
    let to = |out: &str| {
        import_gguf(
            &dir.path().join("x.gguf"),
            &dir.path().join(out),
            &F32,
            &mut |_| {},
        )
    };
    fs::create_dir(dir.path().join("empty")).expect("writable");
    to("empty").expect("an empty directory is free");
    assert!(matches!(
        to("empty"),
        Err(CheckpointError::OutputExists {
            what: "not empty",
            ..
        })
    ));
    assert!(matches!(
        to("x.gguf"),
        Err(CheckpointError::OutputExists {
            what: "not a directory",
            ..
        })
    ));
    assert!(matches!(to("x.gguf/out"), Err(CheckpointError::Io { .. })));
    assert!(matches!(
        to("x.gguf/deeper/out"),
        Err(CheckpointError::Io { .. })
    ));
    assert_eq!(listing(dir.path()), ["empty", "x.gguf"]);
}
