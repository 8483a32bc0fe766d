//! Families whose layers are not alike: positions, windows and bases of single layers, as config.json says.

mod support;

use serde_json::{Value, json};
use sparse_accelerate_checkpoint::{
    Activation, Architecture, LayerAttention, LayerRotation, ModelConfig, RopeScaling,
};
use support::config::parse;
use support::llama_config;

/// The sound Llama config with 8 layers as another class; null takes a field away.
fn edited(class: &str, edits: &[(&str, Value)]) -> Value {
    let mut config = llama_config();
    config["architectures"] = json!([class]);
    config["num_hidden_layers"] = json!(8);
    for field in [
        "model_type",
        "hidden_act",
        "rope_theta",
        "tie_word_embeddings",
    ] {
        config[field] = Value::Null;
    }
    for (field, value) in edits {
        config[*field] = value.clone();
    }
    config
}

fn read(class: &str, edits: &[(&str, Value)]) -> ModelConfig {
    parse(&edited(class, edits)).unwrap_or_else(|error| panic!("{class} {edits:?}: {error}"))
}

fn refused(class: &str, edits: &[(&str, Value)], named: &str) {
    let error = parse(&edited(class, edits)).expect_err(named).to_string();
    assert!(error.contains(named), "{edits:?}: {error}");
}

const SMOL: &str = "SmolLM3ForCausalLM";
const GEMMA: &str = "Gemma3ForCausalLM";

fn rotated(config: &ModelConfig) -> Vec<bool> {
    let layers = config.attention.iter();
    layers.map(|l| l.rotation != LayerRotation::None).collect()
}

#[test]
fn layers_of_a_smollm3_have_positions_but_every_fourth() {
    let config = read(SMOL, &[("model_type", json!("smollm3"))]);
    assert_eq!(config.architecture, Architecture::SmolLm3);
    assert_eq!((config.rope_theta, config.tied_embeddings), (2e6, true));
    let every = |n: usize| (1..=8).map(|layer| layer % n != 0).collect::<Vec<_>>();
    assert_eq!(rotated(&config), every(4));
    assert!(config.windows().is_empty());
    let edits = [("no_rope_layer_interval", json!(3))];
    assert_eq!(rotated(&read(SMOL, &edits)), every(3));
    // A flag is 1 for a layer with positions, against the name of its key.
    let flags = [1, 0, 1, 1, 0, 1, 1, 1];
    let edits = [("no_rope_layers", json!(flags))];
    assert_eq!(rotated(&read(SMOL, &edits)), flags.map(|flag| flag == 1));
    for wrong in [json!([1, 0]), json!([1, 0, 1, 1, 0, 1, 1, 2]), json!(4)] {
        refused(SMOL, &[("no_rope_layers", wrong)], "no_rope_layers");
    }
    refused(
        "LlamaForCausalLM",
        &[("no_rope_layers", json!(flags))],
        "no_rope_layers",
    );
}

#[test]
fn layers_of_a_smollm3_without_positions_have_its_window() {
    let on = ("use_sliding_window", json!(true));
    let config = read(SMOL, &[on.clone(), ("sliding_window", json!(64))]);
    for (layer, attention) in config.attention.iter().enumerate() {
        let window = ((layer + 1) % 4 == 0).then_some(64);
        assert_eq!(attention.window, window, "layer {layer}");
    }
    assert!(read(SMOL, &[on]).windows().is_empty());
    assert!(
        read(SMOL, &[("sliding_window", json!(64))])
            .windows()
            .is_empty()
    );
}

fn local(window: usize) -> LayerAttention {
    LayerAttention {
        window: Some(window),
        rotation: LayerRotation::Local,
    }
}

#[test]
fn a_gemma_is_read_with_what_its_class_has_where_the_file_says_nothing() {
    let config = read(
        GEMMA,
        &[
            ("head_dim", Value::Null),
            ("model_type", json!("gemma3_text")),
        ],
    );
    assert_eq!(config.architecture, Architecture::Gemma3);
    assert_eq!((config.head_dim, config.query_scalar), (256, 256.0));
    assert_eq!((config.rope_theta, config.local_rope_theta), (1e6, 1e4));
    assert_eq!(config.embedding_scale, 8.0);
    assert_eq!(config.activation, Activation::GeluTanh);
    let flags = [
        config.tied_embeddings,
        config.head_norms,
        config.sandwich_norms,
        config.gains_less_one,
    ];
    assert_eq!(flags, [true; 4]);
    let expected: Vec<_> = (1..=8)
        .map(|n| match n % 6 {
            0 => LayerAttention::FULL,
            _ => local(4096),
        })
        .collect();
    assert_eq!(config.attention, expected);
    let names: Vec<_> = config
        .expected_tensors()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    for part in [
        "input",
        "post_attention",
        "pre_feedforward",
        "post_feedforward",
    ] {
        let name = format!("model.layers.7.{part}_layernorm.weight");
        assert_eq!(
            names.iter().filter(|other| **other == name).count(),
            1,
            "{name}"
        );
    }
    assert_eq!(names.len(), 2 + 8 * 13);
}

#[test]
fn a_gemma_says_which_layers_slide() {
    let size = ("sliding_window", json!(64));
    let sliding = |edits: &[(&str, Value)]| {
        let config = read(GEMMA, edits);
        let layers = config.attention.iter();
        layers
            .map(|layer| layer.window.is_some())
            .collect::<Vec<_>>()
    };
    let third = (1..=8).map(|n| n % 3 != 0).collect::<Vec<_>>();
    for name in ["sliding_window_pattern", "_sliding_window_pattern"] {
        assert_eq!(sliding(&[size.clone(), (name, json!(3))]), third);
    }
    let kinds: Vec<_> = third
        .iter()
        .map(|sliding| match sliding {
            true => "sliding_attention",
            false => "full_attention",
        })
        .collect();
    assert_eq!(
        sliding(&[size.clone(), ("layer_types", json!(kinds))]),
        third
    );
    refused(
        GEMMA,
        &[
            ("sliding_window", Value::Null),
            ("layer_types", json!(kinds)),
        ],
        "sliding_window",
    );
    refused(
        GEMMA,
        &[("sliding_window_pattern", json!(0))],
        "sliding_window_pattern",
    );
}

#[test]
fn scaling_of_a_gemma_is_that_of_its_full_layers() {
    let linear = json!({"rope_type": "linear", "factor": 8.0});
    let nested = json!({
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 2e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 5e3},
    });
    for (edits, bases) in [
        (&[("rope_scaling", linear)][..], (1e6, 1e4)),
        (&[("rope_parameters", nested)], (2e6, 5e3)),
    ] {
        let config = read(GEMMA, edits);
        assert_eq!(
            config.rope_scaling,
            Some(RopeScaling::Linear { factor: 8.0 })
        );
        assert_eq!((config.rope_theta, config.local_rope_theta), bases);
        assert_eq!(config.attention[0], local(4096));
    }
    let config = read(GEMMA, &[("rope_local_base_freq", json!(7e3))]);
    assert_eq!(config.local_rope_theta, 7e3);
    // One rotation for all needs no second.
    let config = read(GEMMA, &[("rope_local_base_freq", json!(1e6))]);
    assert_eq!(config.attention[0], LayerAttention::within(Some(4096)));
    let scaled = json!({
        "full_attention": {"rope_theta": 1e6},
        "sliding_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4},
    });
    refused(GEMMA, &[("rope_parameters", scaled)], "sliding_attention");
    let part = json!({
        "full_attention": {"rope_theta": 1e6},
        "sliding_attention": {"rope_theta": 1e4, "partial_rotary_factor": 0.5},
    });
    refused(GEMMA, &[("rope_parameters", part)], "partial_rotary_factor");
    refused(
        GEMMA,
        &[("rope_local_base_freq", json!(0))],
        "rope_local_base_freq",
    );
}

#[test]
fn what_changes_a_gemma_is_honoured_or_refused() {
    let config = read(GEMMA, &[("query_pre_attn_scalar", json!(168))]);
    assert_eq!(config.query_scalar, 168.0);
    for (field, value) in [
        ("query_pre_attn_scalar", json!(0)),
        ("hidden_activation", json!("silu")),
        ("hidden_act", json!("gelu")),
        ("final_logit_softcapping", json!(30.0)),
        ("attn_logit_softcapping", json!(50.0)),
        ("use_bidirectional_attention", json!(true)),
    ] {
        refused(GEMMA, &[(field, value)], field);
    }
    // A file may name another class's default beside its own.
    read(
        GEMMA,
        &[
            ("hidden_activation", json!("gelu_pytorch_tanh")),
            ("hidden_act", json!("silu")),
        ],
    );
    refused(
        "LlamaForCausalLM",
        &[("query_pre_attn_scalar", json!(64))],
        "query_pre_attn_scalar",
    );
}

#[test]
fn layers_with_a_window_are_scaled_unless_the_file_says_default() {
    let kinds: Vec<_> = (0..8)
        .map(|n| ["full_attention", "sliding_attention"][n % 2])
        .collect();
    let linear = json!({"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5});
    let read = |parameters: Value| {
        let config = read(
            "MistralForCausalLM",
            &[
                ("sliding_window", json!(64)),
                ("layer_types", json!(kinds)),
                ("rope_parameters", parameters),
            ],
        );
        (config.attention[1], config.local_rope_theta)
    };
    let within = LayerAttention::within(Some(64));
    assert_eq!(read(linear.clone()).0, within);
    assert_eq!(read(json!({ "full_attention": linear })).0, within);
    let own = json!({ "full_attention": linear, "sliding_attention": {"rope_type": "default"} });
    assert_eq!(read(own), (local(64), 5e5));
}
