//! Sliding windows in config.json: in every layer, in some or in none, as the keys of each family say.

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
        .common_window()
}

/// Windows of both layers.
fn windows(class: &str, edits: &[(&str, Value)]) -> [Option<usize>; 2] {
    let config = read(class, edits);
    let config = config.unwrap_or_else(|error| panic!("{class} {edits:?}: {error}"));
    let windows: Vec<_> = config.attention.iter().map(|layer| layer.window).collect();
    windows.try_into().expect("two layers")
}

/// The second layer alone slides.
fn second() -> (&'static str, Value) {
    (
        "layer_types",
        json!(["full_attention", "sliding_attention"]),
    )
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
            &[("layer_types", json!(["sliding_attention"]))],
            "layer_types",
        ),
        (
            &[("sliding_window", Value::Null), second()],
            "sliding_window",
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
fn a_qwen_has_a_window_from_a_layer_on() {
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
        // From a layer on; 28 where the file does not say.
        let from = |first: usize| {
            [
                on.clone(),
                size.clone(),
                ("max_window_layers", json!(first)),
            ]
        };
        assert_eq!(windows(class, &from(1)), [None, Some(64)]);
        assert_eq!(windows(class, &from(2)), [None, None]);
        assert_eq!(windows(class, &[on.clone(), size.clone()]), [None, None]);
        assert_eq!(
            windows(class, &[on.clone(), size.clone(), second()]),
            [None, Some(64)]
        );
        let error = read(class, &[("use_sliding_window", json!("yes")), size.clone()]);
        let error = error.expect_err("no flag").to_string();
        assert!(error.contains("use_sliding_window"), "{error}");
        let error = read(class, &[all("sliding_attention"), size.clone()]).expect_err("off");
        assert!(matches!(error, ConfigError::Conflict { .. }), "{error}");
    }
}

#[test]
fn windows_may_stand_in_some_layers() {
    let size = ("sliding_window", json!(64));
    for class in MISTRAL {
        assert_eq!(windows(class, &[size.clone(), second()]), [None, Some(64)]);
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
    let size = ("sliding_window", json!(64));
    let mixed = read("LlamaForCausalLM", &[size, second()]);
    assert!(matches!(mixed, Err(ConfigError::Conflict { .. })));
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
