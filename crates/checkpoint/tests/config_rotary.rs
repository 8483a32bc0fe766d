//! Phi-3, the rotated part of a head, and the scalings that follow the length of a sequence.

mod support;

use serde_json::{Value, json};
use sparse_accelerate_checkpoint::{
    Architecture, DynamicScaling, LongRopeScaling, ModelConfig, RopeScaling,
};
use support::config::{parse, refused, with};

/// A sound Phi-3 as its files have it, heads of 32 of which 24 are rotated.
fn phi3() -> Value {
    let mut config = with("architectures", json!(["Phi3ForCausalLM"]));
    config["model_type"] = json!("phi3");
    config["partial_rotary_factor"] = json!(0.75);
    config["original_max_position_embeddings"] = json!(16);
    config["rope_scaling"] = json!({
        "type": "longrope", "short_factor": vec![1.0; 12], "long_factor": vec![2.5; 12],
    });
    config["sliding_window"] = json!(262_144);
    for key in ["attention_bias", "mlp_bias", "lm_head_bias"] {
        config[key] = json!(false);
    }
    config
}

fn longrope(config: &Value) -> (LongRopeScaling, ModelConfig) {
    let parsed = parse(config).expect("sound");
    match parsed.rope_scaling.clone() {
        Some(RopeScaling::LongRope(scaling)) => (scaling, parsed),
        other => panic!("{other:?}"),
    }
}

fn error(config: &Value) -> String {
    parse(config).expect_err("a fault").to_string()
}

#[test]
fn a_phi3_has_fused_projections_and_no_biases() {
    let (scaling, config) = longrope(&phi3());
    assert_eq!(config.architecture, Architecture::Phi3);
    assert_eq!((config.head_dim, config.rotary_dim), (32, 24));
    assert_eq!(config.common_window(), Some(262_144));
    assert!(config.fused_projections && !config.qkv_bias && !config.mlp_bias);
    let tensors: Vec<_> = config.expected_tensors();
    assert_eq!(tensors.len(), 2 * 6 + 2);
    let shape = |name: &str| {
        let name = format!("model.layers.1.{name}.weight");
        let found = tensors.iter().find(|(own, _)| *own == name);
        found.map(|(_, shape)| shape.clone())
    };
    // 2 query heads, 1 key head and 1 value head of 32 over a width of 64; an MLP of 96.
    assert_eq!(shape("self_attn.qkv_proj"), Some(vec![128, 64]));
    assert_eq!(shape("mlp.gate_up_proj"), Some(vec![192, 64]));
    assert_eq!(shape("self_attn.q_proj"), None);
    let llama = parse(&with("tie_word_embeddings", json!(true))).expect("sound");
    assert_eq!(config.parameter_count(), llama.parameter_count());

    let expected = LongRopeScaling {
        short_factors: vec![1.0; 12],
        long_factors: vec![2.5; 12],
        factor: 8.0,
        original_max_positions: 16,
        short_attention_factor: 1.75f64.sqrt(),
        long_attention_factor: 1.75f64.sqrt(),
    };
    assert_eq!((scaling, config.max_positions), (expected, 128));
}

#[test]
fn a_phi3_has_the_window_that_its_size_says_and_none_without() {
    let mut config = phi3();
    config["sliding_window"] = json!(40);
    assert_eq!(parse(&config).expect("sound").common_window(), Some(40));
    config["sliding_window"] = Value::Null;
    assert_eq!(parse(&config).expect("sound").common_window(), None);
    config
        .as_object_mut()
        .expect("an object")
        .remove("sliding_window");
    assert_eq!(parse(&config).expect("sound").common_window(), None);
    config["layer_types"] = json!(["sliding_attention", "sliding_attention"]);
    assert!(error(&config).contains("layer_types"));
}

#[test]
fn longrope_is_spelled_in_several_ways() {
    let (expected, _) = longrope(&phi3());
    for (field, key, kind) in [
        ("rope_scaling", "type", "su"),
        ("rope_scaling", "type", "yarn"),
        ("rope_scaling", "rope_type", "longrope"),
        ("rope_parameters", "rope_type", "longrope"),
    ] {
        let mut config = phi3();
        let mut object = config["rope_scaling"].take();
        object["type"] = Value::Null;
        object[key] = json!(kind);
        // Both may stand inside, too.
        for inside in ["partial_rotary_factor", "original_max_position_embeddings"] {
            object[inside] = config[inside].clone();
            config[inside] = Value::Null;
        }
        config[field] = object;
        assert_eq!(longrope(&config).0, expected, "{field} {kind}");
    }
    // What follows from the lengths may be given.
    let with_scaling = |field: &str, value: Value| {
        let mut config = phi3();
        config["rope_scaling"][field] = value;
        longrope(&config)
    };
    let factors = |(scaling, _): (LongRopeScaling, ModelConfig)| {
        (
            scaling.short_attention_factor,
            scaling.long_attention_factor,
        )
    };
    let derived = 1.75f64.sqrt();
    assert_eq!(
        factors(with_scaling("attention_factor", json!(1.25))),
        (1.25, 1.25)
    );
    assert_eq!(
        factors(with_scaling("short_mscale", json!(1.1))),
        (1.1, derived)
    );
    assert_eq!(
        factors(with_scaling("long_mscale", json!(1.2))),
        (derived, 1.2)
    );
    let (scaling, config) = with_scaling("factor", json!(32.0));
    assert_eq!((scaling.factor, config.max_positions), (32.0, 512));
    assert_eq!(
        scaling.long_attention_factor,
        (1.0 + 32f64.ln() / 16f64.ln()).sqrt()
    );
}

#[test]
fn a_longrope_that_cannot_be_followed_is_refused_by_its_field() {
    for (field, bad) in [
        ("short_factor", Value::Null),
        ("long_factor", json!(vec![1.0; 16])),
        ("long_factor", json!([])),
        ("long_factor", json!(2.0)),
        ("short_factor", json!(vec![0.0; 12])),
        ("short_factor", json!(vec!["1"; 12])),
        ("attention_factor", json!(-1.0)),
        ("factor", json!(0.5)),
        ("factor", json!(1e300)),
        ("original_max_position_embeddings", json!(17)),
    ] {
        let mut config = phi3();
        config["rope_scaling"][field] = bad;
        assert!(
            error(&config).contains(field),
            "{field}: {}",
            error(&config)
        );
    }
    let mut config = phi3();
    config["rope_scaling"]["short_factor"] = json!(vec![1.0; 16]);
    let message = error(&config);
    assert!(
        message.contains("list of 16") && message.contains("12"),
        "{message}"
    );
    for bad in [Value::Null, json!(0), json!(1), json!(u64::MAX)] {
        let mut config = phi3();
        config["original_max_position_embeddings"] = bad;
        assert!(error(&config).contains("original_max_position_embeddings"));
    }
}

#[test]
fn a_part_of_a_head_is_rotated_in_any_family() {
    for (class, head_dim, fraction, rotated) in [
        ("LlamaForCausalLM", 32, 0.5, 16),
        ("Qwen2ForCausalLM", 80, 0.4, 32),
        ("Qwen3ForCausalLM", 128, 0.25, 32),
        ("MistralForCausalLM", 96, 1.0, 96),
    ] {
        let mut config = with("architectures", json!([class]));
        config["model_type"] = Value::Null;
        config["head_dim"] = json!(head_dim);
        config["partial_rotary_factor"] = json!(fraction);
        assert_eq!(
            parse(&config).expect("sound").rotary_dim,
            rotated,
            "{class}"
        );
        // What stands twice agrees.
        config["rope_parameters"] = json!({ "partial_rotary_factor": fraction });
        assert_eq!(
            parse(&config).expect("sound").rotary_dim,
            rotated,
            "{class}"
        );
        config["rope_parameters"]["partial_rotary_factor"] = json!(0.125);
        assert!(error(&config).contains("rope_parameters.partial_rotary_factor"));
    }
    // Of 32 elements: none, more than all, 1, 5, nothing that can be counted.
    for bad in [
        json!(0.0),
        json!(1.5),
        json!(-1),
        json!(0.04),
        json!(0.16),
        json!("half"),
    ] {
        let error = refused("partial_rotary_factor", bad).to_string();
        assert!(error.contains("partial_rotary_factor"), "{error}");
    }
}

#[test]
fn dynamic_ntk_grows_from_the_length_of_the_file() {
    for (field, key) in [("rope_scaling", "type"), ("rope_parameters", "rope_type")] {
        let parsed = parse(&with(field, json!({ key: "dynamic", "factor": 4 }))).expect("sound");
        let expected = DynamicScaling {
            factor: 4.0,
            original_max_positions: 128,
        };
        assert_eq!(parsed.rope_scaling, Some(RopeScaling::Dynamic(expected)));
        assert_eq!(parsed.max_positions, 512);
        assert!(
            parsed
                .rope_scaling
                .is_some_and(|scaling| scaling.follows_length())
        );
    }
    for (bad, named) in [
        (json!({ "type": "dynamic" }), "factor"),
        (json!({ "type": "dynamic", "factor": 0.5 }), "factor"),
        (json!({ "type": "dynamic", "factor": 1e9 }), "factor"),
        (
            json!({ "type": "dynamic", "factor": 2, "original_max_position_embeddings": 64 }),
            "max_position_embeddings",
        ),
        (
            json!({ "type": "dynamic", "factor": 2, "partial_rotary_factor": 0.0625 }),
            "partial_rotary_factor",
        ),
    ] {
        let error = refused("rope_scaling", bad).to_string();
        assert!(error.contains(named), "{error}");
    }
}
