//! Values of config.json and generation_config.json: numbers, rotary scaling, token ids, dtype, sampling defaults.
//!
//! Each bad config is the sound one with a single edit.

mod support;

use serde_json::{Value, json};
use sparse_accelerate_checkpoint::{
    CheckpointError, ConfigError, GenerationConfig, Llama3Scaling, ModelConfig, RopeScaling,
    WeightDtype, YarnScaling,
};
use support::config::{parse, refused, with};
use support::llama_config;

#[test]
fn numbers_are_finite_and_positive() {
    for bad in [json!(0.0), json!(-1e-5), json!(2.0)] {
        assert!(matches!(
            refused("rms_norm_eps", bad),
            ConfigError::Value {
                field: "rms_norm_eps",
                ..
            }
        ));
    }
    for bad in [json!(0.0), json!(-1.0)] {
        assert!(matches!(
            refused("rope_theta", bad),
            ConfigError::Value {
                field: "rope_theta",
                ..
            }
        ));
    }
    let text = llama_config().to_string().replace("10000.0", "NaN");
    assert!(matches!(
        ModelConfig::from_json(&text),
        Err(CheckpointError::Config(ConfigError::Type { field, .. })) if field == "rope_theta"
    ));
    let text = llama_config().to_string().replace("10000.0", "1e999");
    assert!(matches!(
        ModelConfig::from_json(&text),
        Err(CheckpointError::Config(_))
    ));
}

#[test]
fn rope_scaling_speaks_two_dialects() {
    let llama3 = json!({ "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 8192 });
    let expected = Some(RopeScaling::Llama3(Llama3Scaling {
        factor: 32.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_positions: 8192,
    }));
    assert_eq!(
        parse(&with("rope_scaling", llama3.clone()))
            .expect("sound")
            .rope_scaling,
        expected
    );
    assert_eq!(
        parse(&with("rope_scaling", json!({ "type": "default" })))
            .expect("sound")
            .rope_scaling,
        None
    );

    let mut newer = with("rope_theta", Value::Null);
    newer["rope_parameters"] = llama3.clone();
    newer["rope_parameters"]["rope_theta"] = json!(500_000.0);
    let parsed = parse(&newer).expect("sound");
    assert_eq!(
        (parsed.rope_theta, parsed.rope_scaling),
        (500_000.0, expected)
    );
    newer["rope_theta"] = json!(1.0);
    assert!(
        parse(&newer)
            .expect_err("two thetas")
            .to_string()
            .contains("rope_parameters.rope_theta")
    );

    for kind in ["proportional", "mrope"] {
        let error = refused("rope_scaling", json!({ "type": kind, "factor": 2.0 }));
        assert!(matches!(error, ConfigError::RopeScaling { .. }), "{error}");
    }
    for (field, bad) in [
        ("factor", json!(0.5)),
        ("high_freq_factor", json!(1.0)),
        ("low_freq_factor", Value::Null),
    ] {
        let mut scaling = llama3.clone();
        scaling[field] = bad;
        assert!(refused("rope_scaling", scaling).to_string().contains(field));
    }
}

#[test]
fn linear_interpolation_divides_positions() {
    for family in ["LlamaForCausalLM", "Qwen2ForCausalLM"] {
        for (field, key) in [("rope_scaling", "type"), ("rope_parameters", "rope_type")] {
            let mut config = with(field, json!({ key: "linear", "factor": 4 }));
            config["architectures"] = json!([family]);
            config["model_type"] = Value::Null;
            let parsed = parse(&config).expect("sound");
            let expected = Some(RopeScaling::Linear { factor: 4.0 });
            assert_eq!((parsed.rope_scaling, parsed.max_positions), (expected, 128));
        }
    }
    // The stretched length may stand in the old spelling.
    let mut long = with("rope_scaling", json!({ "type": "linear", "factor": 4.0 }));
    long["max_sequence_length"] = json!(512);
    assert_eq!(parse(&long).expect("sound").max_positions, 512);
    for bad in [json!(0.5), json!(1e300), json!("2"), Value::Null] {
        let error = refused("rope_scaling", json!({ "type": "linear", "factor": bad }));
        assert!(error.to_string().contains("factor"), "{error}");
    }
}

#[test]
fn a_scaling_that_does_nothing_is_none() {
    for field in ["rope_scaling", "rope_parameters"] {
        for idle in [
            json!({}),
            json!({ "factor": 1.0 }),
            json!({ "type": "linear", "factor": 1 }),
            json!({ "type": "dynamic", "factor": 1.0 }),
            json!({ "rope_type": "default", "factor": 8.0 }),
            json!({ "rope_type": null, "type": null }),
            json!({ "rope_type": "default", "llama_4_scaling_beta": 0 }),
        ] {
            let parsed = parse(&with(field, idle.clone())).expect("sound");
            assert_eq!(parsed.rope_scaling, None, "{idle}");
        }
        // A factor that nobody says how to apply, queries scaled by their positions.
        for bad in [
            json!({ "factor": 2.0 }),
            json!({ "rope_type": "default", "llama_4_scaling_beta": 0.1 }),
            json!({ "type": "dynamic", "alpha": 1000, "factor": 1.0 }),
        ] {
            let error = refused(field, bad).to_string();
            let named = ["factor", "llama_4_scaling_beta", "alpha"];
            assert!(named.iter().any(|name| error.contains(name)), "{error}");
        }
    }
}

#[test]
fn rotary_fields_are_found_in_every_place() {
    let llama3 = json!({ "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 64, "rope_theta": 5e5 });
    let other = json!({ "rope_type": "default", "rope_theta": 1e4 });
    let mut qwen2 = with("rope_theta", Value::Null);
    qwen2["architectures"] = json!(["Qwen2ForCausalLM"]);
    qwen2["model_type"] = json!("qwen2");
    for field in ["rope_scaling", "rope_parameters"] {
        for value in [
            llama3.clone(),
            json!({ "full_attention": llama3, "sliding_attention": other }),
            json!({ "full_attention": llama3, "rope_theta": 5e5 }),
        ] {
            let mut config = qwen2.clone();
            config[field] = value;
            let parsed = parse(&config).expect("sound");
            assert_eq!(parsed.rope_theta, 5e5);
            assert!(
                matches!(parsed.rope_scaling, Some(RopeScaling::Llama3(scaling)) if scaling.factor == 8.0),
                "{config}"
            );
            // What stands twice agrees.
            config["rope_theta"] = json!(1e4);
            let error = parse(&config).expect_err("two bases").to_string();
            assert!(
                error.contains("rope_theta") && error.contains(field),
                "{error}"
            );
        }
        let mut config = qwen2.clone();
        config[field] = json!({ "sliding_attention": other });
        let error = parse(&config).expect_err("for no layer").to_string();
        assert!(error.contains("full_attention"), "{error}");
    }
    let mut both = qwen2;
    both["rope_scaling"] = json!({ "type": "linear", "factor": 2.0 });
    both["rope_parameters"] = json!({ "full_attention": llama3 });
    let error = parse(&both).expect_err("two scalings").to_string();
    assert!(
        error.contains("rope_scaling") && error.contains("rope_parameters"),
        "{error}"
    );
}

#[test]
fn yarn_stretches_positions() {
    let config = |scaling: Value| {
        let mut config = with("max_position_embeddings", json!(32768));
        config["rope_scaling"] = scaling;
        config
    };
    // As Qwen's model cards write it: the length in the file stays that of before.
    let qwen = json!({ "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768 });
    let parsed = parse(&config(qwen.clone())).expect("sound");
    assert_eq!(parsed.max_positions, 131_072);
    let yarn = YarnScaling {
        factor: 4.0,
        original_max_positions: 32768,
        attention_factor: 0.1 * 4f64.ln() + 1.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        truncate: true,
    };
    assert_eq!(parsed.rope_scaling, Some(RopeScaling::Yarn(yarn)));
    // The original length is that of the file where the scaling names none; a longer one stays.
    let bare = parse(&config(json!({ "rope_type": "yarn", "factor": 1.0 }))).expect("sound");
    let Some(RopeScaling::Yarn(bare_yarn)) = bare.rope_scaling else {
        panic!("{:?}", bare.rope_scaling);
    };
    assert_eq!(bare.max_positions, 32768);
    assert_eq!(
        (bare_yarn.original_max_positions, bare_yarn.attention_factor),
        (32768, 1.0)
    );
    let mut own = qwen.clone();
    own["attention_factor"] = json!(1.25);
    own["mscale"] = json!(0.7);
    own["mscale_all_dim"] = json!(0.7);
    let attention = |scaling| match parse(&config(scaling)).expect("sound").rope_scaling {
        Some(RopeScaling::Yarn(yarn)) => yarn.attention_factor,
        other => panic!("{other:?}"),
    };
    assert_eq!(attention(own.clone()), 1.25);
    own["attention_factor"] = Value::Null;
    assert_eq!(attention(own), 1.0);
    for (field, bad) in [
        ("factor", json!(0.5)),
        ("factor", Value::Null),
        ("factor", json!(1e9)),
        ("original_max_position_embeddings", json!(0)),
        ("attention_factor", json!(-1.0)),
        ("beta_slow", json!(-1.0)),
        ("beta_fast", json!(0.5)),
    ] {
        let mut scaling = qwen.clone();
        scaling[field] = bad;
        assert!(refused("rope_scaling", scaling).to_string().contains(field));
    }
}

#[test]
fn token_ids_are_one_or_many_and_inside_the_vocabulary() {
    assert_eq!(
        parse(&with("eos_token_id", json!([1, 2])))
            .expect("sound")
            .eos,
        [1, 2]
    );
    assert_eq!(
        parse(&with("eos_token_id", Value::Null))
            .expect("sound")
            .eos,
        [0u32; 0]
    );
    assert!(matches!(
        refused("eos_token_id", json!([1, 300])),
        ConfigError::Value {
            field: "eos_token_id",
            ..
        }
    ));
    // Below zero says that there is none.
    for (value, left) in [(json!(-1), vec![]), (json!([-1, 3]), vec![3])] {
        assert_eq!(
            parse(&with("eos_token_id", value)).expect("sound").eos,
            left
        );
    }
    let none = parse(&with("bos_token_id", json!(-1))).expect("sound");
    assert_eq!(none.bos, None);
    assert!(matches!(
        refused("bos_token_id", json!(1.5)),
        ConfigError::Type { .. }
    ));
}

#[test]
fn dtype_is_one_of_three() {
    assert_eq!(
        parse(&with("torch_dtype", Value::Null))
            .expect("sound")
            .dtype,
        WeightDtype::F32
    );
    assert_eq!(
        parse(&with("dtype", json!("float16")))
            .expect("sound")
            .dtype,
        WeightDtype::F16
    );
    assert!(matches!(
        refused("torch_dtype", json!("float8_e4m3fn")),
        ConfigError::Value { .. }
    ));
    assert_eq!(
        format!(
            "{} {} {}",
            WeightDtype::F32,
            WeightDtype::F16,
            WeightDtype::Bf16
        ),
        "f32 f16 bf16"
    );
}

#[test]
fn generation_defaults_are_read_and_checked() {
    let text = r#"{"eos_token_id": [1, 2], "temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.05,
                   "repetition_penalty": 1.1, "do_sample": true, "bos_token_id": 3}"#;
    let expected = GenerationConfig {
        eos: vec![1, 2],
        endless: false,
        bos: Some(3),
        temperature: Some(0.7),
        top_k: Some(20),
        top_p: Some(0.8),
        min_p: Some(0.05),
        repetition_penalty: Some(1.1),
        do_sample: true,
        notes: Vec::new(),
    };
    assert_eq!(GenerationConfig::from_json(text).expect("sound"), expected);
    assert_eq!(
        GenerationConfig::from_json("{}").expect("sound"),
        GenerationConfig::default()
    );
    for bad in [
        r#"{"top_k": "many"}"#,
        r#"{"eos_token_id": "x"}"#,
        r#"{"do_sample": 1}"#,
        "[]",
    ] {
        let error = GenerationConfig::from_json(bad).expect_err(bad);
        assert!(
            error.to_string().contains("generation_config.json"),
            "{error}"
        );
    }
}

#[test]
fn sampling_defaults_that_mean_off_are_noted() {
    let read = |text: &str| GenerationConfig::from_json(text).expect("runs");
    let file = read(
        r#"{"top_k": -1, "top_p": 0, "min_p": -1, "repetition_penalty": 0, "temperature": -1.0, "bos_token_id": -1,
            "eos_token_id": [-1, 3], "do_sample": true}"#,
    );
    assert_eq!(file.notes.len(), 6, "{:?}", file.notes);
    for field in [
        "top_k",
        "top_p",
        "min_p",
        "repetition_penalty",
        "temperature",
        "eos_token_id",
    ] {
        let named = |note: &&String| note.contains(field);
        assert_eq!(
            file.notes.iter().filter(named).count(),
            1,
            "{field}: {:?}",
            file.notes
        );
    }
    let expected = GenerationConfig {
        eos: vec![3],
        do_sample: true,
        notes: file.notes.clone(),
        ..GenerationConfig::default()
    };
    assert_eq!(file, expected);
    let out_of_range = read(r#"{"top_p": 1.5, "top_k": 2.5, "min_p": 2}"#);
    assert_eq!(out_of_range.notes.len(), 3, "{:?}", out_of_range.notes);
    let words = read(r#"{"top_p": NaN, "temperature": Infinity, "top_k": -Infinity}"#);
    assert_eq!(words.notes.len(), 3, "{:?}", words.notes);
    assert_eq!(
        (words.top_p, words.temperature, words.top_k),
        (None, None, None)
    );
    let off = read(r#"{"top_k": 0, "top_p": 1, "min_p": 0, "repetition_penalty": 1.0}"#);
    assert!(off.notes.is_empty(), "{:?}", off.notes);
    assert_eq!(read(r#"{"top_k": 50.0}"#).top_k, Some(50));
}

#[test]
fn settings_that_are_not_honoured_are_named() {
    let file = GenerationConfig::from_json(
        r#"{"num_beams": 4, "no_repeat_ngram_size": 3, "bad_words_ids": [[1]], "suppress_tokens": [], "typical_p": 1.0, "num_beam_groups": 1,
            "early_stopping": false, "new_setting": "x", "transformers_version": "5.0", "use_cache": true, "pad_token_id": 0}"#,
    )
    .expect("runs");
    assert_eq!(
        file.notes,
        [
            "generation_config.json: not honoured: `bad_words_ids` [[1]], `new_setting` \"x\", `no_repeat_ngram_size` 3, `num_beams` 4"
        ]
    );
}
