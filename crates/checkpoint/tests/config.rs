//! config.json: what is read, what is refused, and that each refusal names its field.
//!
//! Each bad config is the sound one with a single edit.

mod support;

use serde_json::{Value, json};
use sparse_accelerate_checkpoint::{
    Activation, Architecture, CheckpointError, ConfigError, LayerAttention, ModelConfig,
    WeightDtype,
};
use support::config::{parse, refused, with};
use support::llama_config;

#[test]
fn a_llama_config_is_read_whole() {
    let expected = ModelConfig {
        architecture: Architecture::Llama,
        hidden_size: 64,
        intermediate_size: 96,
        layers: 2,
        heads: 2,
        kv_heads: 1,
        head_dim: 32,
        vocab_size: 300,
        max_positions: 128,
        rope_theta: 10_000.0,
        rotary_dim: 32,
        rope_scaling: None,
        local_rope_theta: 10_000.0,
        attention: vec![LayerAttention::FULL; 2],
        query_scalar: 32.0,
        embedding_scale: 1.0,
        activation: Activation::Silu,
        norm_eps: 1e-5,
        tied_embeddings: true,
        fused_projections: false,
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        head_norms: false,
        sandwich_norms: false,
        gains_less_one: false,
        dtype: WeightDtype::Bf16,
        bos: Some(256),
        eos: vec![257],
    };
    assert_eq!(parse(&llama_config()).expect("sound"), expected);
}

#[test]
fn qwen2_has_biases_on_queries_keys_and_values() {
    let mut config = with("architectures", json!(["Qwen2ForCausalLM"]));
    config["model_type"] = json!("qwen2");
    config["use_sliding_window"] = json!(false);
    config["sliding_window"] = json!(4096);
    let config = parse(&config).expect("sound");
    assert_eq!(
        (config.qkv_bias, config.output_bias, config.mlp_bias),
        (true, false, false)
    );
    let names: Vec<String> = config
        .expected_tensors()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert!(names.contains(&"model.layers.1.self_attn.k_proj.bias".to_owned()));
    assert!(!names.contains(&"model.layers.1.self_attn.o_proj.bias".to_owned()));
}

#[test]
fn qwen3_has_norms_on_the_heads_of_queries_and_keys() {
    let mut config = with("architectures", json!(["Qwen3ForCausalLM"]));
    config["model_type"] = json!("qwen3");
    config["use_sliding_window"] = json!(false);
    config["sliding_window"] = json!(4096);
    config["head_dim"] = json!(64);
    let parsed = parse(&config).expect("sound");
    assert_eq!(parsed.architecture, Architecture::Qwen3);
    assert!(parsed.head_norms && !parsed.qkv_bias && !parsed.output_bias);
    let tensors = parsed.expected_tensors();
    for name in ["q_norm", "k_norm"] {
        let tensor = (format!("model.layers.1.self_attn.{name}.weight"), vec![64]);
        assert!(tensors.contains(&tensor), "{name}");
    }
    assert_eq!(tensors.len(), 2 * 11 + 2);
    // Heads are not cut out of the width: 2 of 64 in 64, and 128 where nothing is said.
    let query = (
        "model.layers.0.self_attn.q_proj.weight".to_owned(),
        vec![128, 64],
    );
    assert!(tensors.contains(&query));
    config["head_dim"] = Value::Null;
    assert_eq!(parse(&config).expect("sound").head_dim, 128);
    // One word for the biases of all four projections.
    config["attention_bias"] = json!(true);
    let biased = parse(&config).expect("sound");
    assert!(biased.qkv_bias && biased.output_bias && !biased.mlp_bias);
    // Without the class the type says the family.
    config["architectures"] = Value::Null;
    assert_eq!(parse(&config).expect("sound"), biased);
}

#[test]
fn llama_biases_follow_their_two_fields() {
    let mut config = with("attention_bias", json!(true));
    config["mlp_bias"] = json!(true);
    let config = parse(&config).expect("sound");
    assert_eq!(
        (config.qkv_bias, config.output_bias, config.mlp_bias),
        (true, true, true)
    );
}

#[test]
fn tensors_parameters_and_cache_bytes_follow() {
    let mut config = parse(&llama_config()).expect("sound");
    // Per block: q 64*64, k and v 32*64, o 64*64, three MLP 96*64, two norms 64; ends: table 300*64, norm 64.
    let block = 64 * 64 * 2 + 32 * 64 * 2 + 96 * 64 * 3 + 64 * 2;
    assert_eq!(config.parameter_count(), 2 * block + 300 * 64 + 64);
    assert_eq!(config.kv_bytes_per_token(WeightDtype::F16), 2 * 2 * 32 * 2);
    assert_eq!(config.expected_tensors().len(), 2 * 9 + 2);
    assert_eq!(
        config.expected_tensors()[0],
        ("model.embed_tokens.weight".to_owned(), vec![300, 64])
    );
    config.tied_embeddings = false;
    assert_eq!(
        config.expected_tensors().last(),
        Some(&("lm_head.weight".to_owned(), vec![300, 64]))
    );
    let sum: usize = config
        .expected_tensors()
        .iter()
        .map(|(_, shape)| shape.iter().product::<usize>())
        .sum();
    assert_eq!(sum as u64, config.parameter_count());
}

#[test]
fn a_required_field_that_is_missing_is_named() {
    for field in [
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "vocab_size",
        "max_position_embeddings",
    ] {
        let error = refused(field, Value::Null);
        assert!(
            matches!(error, ConfigError::Missing { field: named, .. } if named == field),
            "{error}"
        );
    }
    let mut config = with("architectures", Value::Null);
    config["model_type"] = Value::Null;
    assert!(
        parse(&config)
            .expect_err("no family")
            .to_string()
            .contains("architectures")
    );
}

#[test]
fn sizes_are_in_their_limits() {
    for field in [
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "vocab_size",
    ] {
        for bad in [json!(0), json!(u64::MAX), json!(1u64 << 40)] {
            let error = refused(field, bad);
            assert!(
                matches!(error, ConfigError::Value { field: named, .. } if named == field),
                "{error}"
            );
        }
        for bad in [json!(-1), json!(1.5), json!("64"), json!([64])] {
            let error = refused(field, bad);
            assert!(
                matches!(error, ConfigError::Type { field: ref named, .. } if named == field),
                "{error}"
            );
        }
    }
    assert!(matches!(
        refused("num_key_value_heads", json!(0)),
        ConfigError::Value { .. }
    ));
}

#[test]
fn heads_divide() {
    let mut config = with("num_attention_heads", json!(3));
    config["num_key_value_heads"] = json!(2);
    config["head_dim"] = json!(32);
    assert!(
        parse(&config)
            .expect_err("3 % 2")
            .to_string()
            .contains("num_key_value_heads")
    );
    let error = refused("num_attention_heads", json!(3));
    assert!(
        matches!(
            error,
            ConfigError::Conflict {
                field: "hidden_size",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn head_dim_is_what_the_kernels_take() {
    for bad in [8, 24, 36, 264, 512, 0] {
        assert_eq!(
            refused("head_dim", json!(bad)),
            ConfigError::HeadDim { got: bad }
        );
    }
    for good in [32, 40, 64, 80, 128, 256] {
        assert_eq!(
            parse(&with("head_dim", json!(good)))
                .expect("sound")
                .head_dim,
            good
        );
    }
    assert!(
        refused("head_dim", json!(72_000))
            .to_string()
            .contains("32..=256")
    );
}

#[test]
fn other_families_are_refused_by_name() {
    for (field, value) in [
        ("architectures", json!(["Qwen3MoeForCausalLM"])),
        ("model_type", json!("gemma2")),
    ] {
        let error = refused(field, value);
        assert!(
            matches!(error, ConfigError::UnsupportedArchitecture { .. }),
            "{error}"
        );
        for family in ["LlamaForCausalLM (model_type llama)", "Qwen3ForCausalLM"] {
            assert!(error.to_string().contains(family), "{error}");
        }
    }
    assert!(matches!(
        refused("model_type", json!("qwen2")),
        ConfigError::Conflict { .. }
    ));
    assert!(matches!(
        refused("architectures", json!(["LlamaForCausalLM", "x"])),
        ConfigError::Type { .. }
    ));
}

#[test]
fn what_changes_the_mathematics_is_refused() {
    for (field, value) in [
        ("hidden_act", json!("gelu")),
        ("use_sliding_window", json!(true)),
        ("quantization_config", json!({ "bits": 4 })),
        ("lm_head_bias", json!(true)),
        ("num_local_experts", json!(8)),
        ("final_logit_softcapping", json!(30.0)),
        ("rope_interleaved", json!(true)),
    ] {
        let error = refused(field, value);
        assert!(
            matches!(error, ConfigError::UnsupportedFeature { field: named, .. } if named == field),
            "{error}"
        );
    }
    assert!(
        parse(&with(
            "layer_types",
            json!(["full_attention", "full_attention"])
        ))
        .is_ok()
    );
    for (field, nothing) in [
        ("lm_head_bias", json!(false)),
        ("quantization_config", json!({})),
        ("no_rope_layers", json!([])),
    ] {
        assert!(parse(&with(field, nothing)).is_ok(), "{field}");
    }
}

#[test]
fn the_first_llama_files_are_read() {
    let mut config = with("architectures", json!(["LLaMAForCausalLM"]));
    let fields = config.as_object_mut().expect("an object");
    fields.remove("rms_norm_eps");
    fields.remove("max_position_embeddings");
    config["max_sequence_length"] = json!(2048);
    let parsed = parse(&config).expect("sound");
    assert_eq!(
        (parsed.architecture, parsed.max_positions, parsed.norm_eps),
        (Architecture::Llama, 2048, 1e-6)
    );
    // Where both lengths stand there, the newer one counts.
    config["max_position_embeddings"] = json!(128);
    assert_eq!(parse(&config).expect("sound").max_positions, 128);
}

#[test]
fn words_that_python_writes_are_read() {
    let with = |field: &str, word: &str| {
        let text = llama_config().to_string();
        let rest = text.strip_prefix('{').expect("an object");
        ModelConfig::from_json(&format!("{{\"{field}\": {word}, {rest}"))
    };
    for word in ["NaN", "Infinity", "-Infinity"] {
        with("router_aux_loss", word).expect("nobody reads it");
        for field in ["attention_bias", "head_dim", "final_logit_softcapping"] {
            let error = with(field, word).expect_err("it is read").to_string();
            assert!(error.contains(field) && error.contains(word), "{error}");
        }
    }
}

#[test]
fn text_that_is_no_object_is_refused() {
    for text in ["", "[]", "null", "{", "\u{0}"] {
        let error = ModelConfig::from_json(text).expect_err("not an object");
        assert!(
            matches!(error, CheckpointError::Config(ConfigError::Syntax { .. })),
            "{error}"
        );
    }
}
