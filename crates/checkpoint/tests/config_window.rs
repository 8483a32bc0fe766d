//! Sliding windows in config.json: honoured in every layer or in none, else refused by name.

mod support;

use serde_json::{Value, json};
use sparse_accelerate_checkpoint::{Architecture, CheckpointError, ConfigError, ModelConfig};
use support::config::{parse, with};
use support::llama_config;

/// A sound config of a class; `edits` set fields, null included.
fn read(class: &str, edits: &[(&str, Value)]) -> Result<ModelConfig, ConfigError> {
    let mut config = llama_config();
    config["architectures"] = json!([class]);
    config["model_type"] = Value::Null;
    for (field, value) in edits {
        config[*field] = value.clone();
    }
    parse(&config).map_err(|error| match error {
        CheckpointError::Config(error) => error,
        other => panic!("{other}"),
    })
}

fn window(class: &str, edits: &[(&str, Value)]) -> Option<usize> {
    let config = read(class, edits);
    config
        .unwrap_or_else(|error| panic!("{class} {edits:?}: {error}"))
        .window
}

fn all(kind: &str) -> (&'static str, Value) {
    ("layer_types", json!([kind, kind]))
}

const MISTRAL: [&str; 2] = ["MistralForCausalLM", "MinistralForCausalLM"];
const QWEN: [&str; 2] = ["Qwen2ForCausalLM", "Qwen3ForCausalLM"];

#[test]
fn a_mistral_has_the_window_that_its_size_says() {
    for class in MISTRAL {
        let size = |value: Value| ("sliding_window", value);
        assert_eq!(window(class, &[size(json!(32768))]), Some(32768));
        assert_eq!(window(class, &[size(Value::Null)]), None);
        assert_eq!(
            window(class, &[size(json!(64)), all("sliding_attention")]),
            Some(64)
        );
        assert_eq!(
            window(class, &[size(Value::Null), all("full_attention")]),
            None
        );
        // As the class has it.
        assert_eq!(window(class, &[]), Some(4096));
        let config = read(class, &[size(json!(64)), ("head_dim", json!(128))]).expect("sound");
        assert_eq!(
            (config.architecture, config.head_dim),
            (Architecture::Mistral, 128)
        );
        assert!(!config.qkv_bias && !config.head_norms);
        assert_eq!(config.expected_tensors().len(), 2 * 9 + 2);
    }
    for model_type in ["mistral", "ministral"] {
        let edits = [
            ("architectures", Value::Null),
            ("model_type", json!(model_type)),
        ];
        let config = read("", &edits).expect("sound");
        assert_eq!(config.architecture, Architecture::Mistral);
    }
}

#[test]
fn a_mistral_that_contradicts_itself_is_refused() {
    for (edits, named) in [
        (
            &[("sliding_window", json!(64)), all("full_attention")][..],
            "layer_types",
        ),
        (
            &[("sliding_window", Value::Null), all("sliding_attention")],
            "layer_types",
        ),
        (
            &[
                ("sliding_window", json!(64)),
                ("use_sliding_window", json!(false)),
            ],
            "use_sliding_window",
        ),
        (
            &[(
                "layer_types",
                json!(["sliding_attention", "full_attention"]),
            )],
            "layer_types",
        ),
        (&[all("chunked_attention")], "layer_types"),
        (&[("sliding_window", json!(0))], "sliding_window"),
        (&[("sliding_window", json!(-1))], "sliding_window"),
        (&[("sliding_window", json!("4096"))], "sliding_window"),
    ] {
        let error = read("MistralForCausalLM", edits)
            .expect_err(named)
            .to_string();
        assert!(error.contains(named), "{edits:?}: {error}");
    }
}

#[test]
fn a_qwen_has_a_window_in_every_layer_or_in_none() {
    let on = ("use_sliding_window", json!(true));
    let size = ("sliding_window", json!(64));
    for class in QWEN {
        // What is switched off is no window, whatever its size.
        for off in [json!(false), Value::Null] {
            let edits = [
                ("use_sliding_window", off),
                size.clone(),
                ("max_window_layers", json!(1)),
            ];
            assert_eq!(window(class, &edits), None);
        }
        let every = [on.clone(), size.clone(), ("max_window_layers", json!(0))];
        assert_eq!(window(class, &every), Some(64));
        assert_eq!(
            window(class, &[on.clone(), size.clone(), all("sliding_attention")]),
            Some(64)
        );
        assert_eq!(
            window(class, &[on.clone(), ("max_window_layers", json!(0))]),
            Some(4096)
        );
        for edits in [
            &[on.clone(), size.clone(), ("max_window_layers", json!(1))][..],
            &[on.clone(), size.clone()],
            &[("use_sliding_window", json!("yes")), size.clone()],
        ] {
            let error = read(class, edits).expect_err("in some layers");
            let named = matches!(
                error,
                ConfigError::UnsupportedFeature {
                    field: "use_sliding_window",
                    ..
                }
            );
            assert!(
                named && error.to_string().contains("max_window_layers"),
                "{error}"
            );
        }
        let error = read(class, &[all("sliding_attention"), size.clone()]).expect_err("off");
        assert!(matches!(error, ConfigError::Conflict { .. }), "{error}");
    }
}

#[test]
fn a_llama_has_no_window() {
    assert_eq!(
        window("LlamaForCausalLM", &[("sliding_window", json!(64))]),
        None
    );
    let listed = read(
        "LlamaForCausalLM",
        &[("sliding_window", json!(64)), all("sliding_attention")],
    );
    assert!(matches!(listed, Err(ConfigError::Conflict { .. })));
}

#[test]
fn a_window_that_no_layer_has_is_none() {
    let mut windowed = with("use_sliding_window", json!(true));
    windowed["sliding_window"] = json!(64);
    let edited = |field: &str, value: Value| {
        let mut config = windowed.clone();
        config[field] = value;
        parse(&config)
    };
    for (field, value) in [
        ("max_window_layers", json!(2)),
        ("max_window_layers", json!(28)),
        ("sliding_window", Value::Null),
        ("layer_types", json!(["full_attention", "full_attention"])),
    ] {
        assert!(edited(field, value.clone()).is_ok(), "{field} = {value}");
    }
    for (field, value) in [
        ("max_window_layers", json!(1)),
        ("max_window_layers", Value::Null),
        ("layer_types", json!([])),
        (
            "layer_types",
            json!(["full_attention", "sliding_attention"]),
        ),
    ] {
        let error = edited(field, value.clone()).expect_err("a layer has it");
        assert!(error.to_string().contains("window") || error.to_string().contains("layer_types"));
    }
}
