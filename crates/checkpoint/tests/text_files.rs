//! The small files beside tokenizer.json, and what a directory without them, or with broken ones, falls back to.

mod support;

use serde_json::{Value, json};
use sparse_accelerate_checkpoint::{ChatDate, ChatMessage, CheckpointError, ModelDir, TextError};
use support::{model_dir, put};
use tempfile::TempDir;

const CHATML: &str =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}";

fn with(files: &[(&str, Value)]) -> TempDir {
    let dir = model_dir();
    for (name, value) in files {
        let text = match value {
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        put(dir.path(), name, text.as_bytes());
    }
    dir
}

fn opened(files: &[(&str, Value)]) -> ModelDir {
    ModelDir::open(with(files).path()).unwrap_or_else(|error| panic!("{files:?}: {error}"))
}

fn chat(model: &ModelDir) -> Result<String, TextError> {
    let messages = [ChatMessage::new("user", "hi")];
    model
        .chat_template()?
        .render(&messages, true, ChatDate::Fixed)
}

#[test]
fn a_broken_template_is_an_error_of_who_uses_it() {
    let broken = [
        (
            "tokenizer_config.json",
            json!({ "chat_template": "{% for %}" }),
        ),
        ("tokenizer_config.json", json!({ "chat_template": 7 })),
        (
            "tokenizer_config.json",
            json!({ "chat_template": [{ "name": "tool", "template": "x" }] }),
        ),
        (
            "tokenizer_config.json",
            json!({ "chat_template": "x", "pad_token": 7 }),
        ),
        ("tokenizer_config.json", json!([])),
        ("chat_template.jinja", json!("{{ 'never closed")),
    ];
    for (file, content) in broken {
        let model = opened(&[(file, content.clone())]);
        let error = model.chat_template().expect_err("broken");
        assert_ne!(error, TextError::NoTemplate, "{content}");
        assert!(
            model
                .notes()
                .iter()
                .any(|note| note.contains(&error.to_string())),
            "{content}: {:?}",
            model.notes()
        );
        assert!(model.tokenizer().encode("hi", true).is_ok());
    }
    let dir = model_dir();
    put(dir.path(), "chat_template.jinja", b"\xff\xfe");
    let model = ModelDir::open(dir.path()).expect("opens");
    assert!(matches!(
        model.chat_template(),
        Err(TextError::TemplateFile { .. })
    ));

    let model = opened(&[]);
    assert_eq!(chat(&model), Err(TextError::NoTemplate));
    assert!(model.notes().is_empty(), "a base model needs no template");

    let dir = with(&[("tokenizer_config.json", json!("{"))]);
    assert!(matches!(
        ModelDir::open(dir.path()),
        Err(CheckpointError::Json { .. })
    ));
}

#[test]
fn special_tokens_of_either_file_are_variables() {
    let template = "{{ bos_token }}{{ eos_token }}{{ unk_token }}{{ sep_token }}{{ pad_token }}{{ cls_token }}{{ mask_token }}\
                    {{ image_token }}{{ additional_special_tokens|length }}";
    let tokens = json!({
        "bos_token": "1", "eos_token": { "content": "2", "lstrip": true }, "unk_token": "3", "sep_token": "4", "pad_token": "5",
        "cls_token": "6", "mask_token": "7", "additional_special_tokens": ["8", { "content": "9" }],
    });
    let mut config = tokens.clone();
    config["chat_template"] = template.into();
    config["extra_special_tokens"] = json!({ "image_token": "i" });
    let model = opened(&[("tokenizer_config.json", config)]);
    assert_eq!(chat(&model).as_deref(), Ok("1234567i2"));

    let mut own = json!({ "chat_template": template, "bos_token": "0", "pad_token": null });
    let files = |own: &Value| {
        [
            ("tokenizer_config.json", own.clone()),
            ("special_tokens_map.json", tokens.clone()),
        ]
    };
    assert_eq!(chat(&opened(&files(&own))).as_deref(), Ok("12345672"));
    own["added_tokens_decoder"] = json!({});
    assert_eq!(chat(&opened(&files(&own))).as_deref(), Ok("02345672"));
}

#[test]
fn tokens_that_only_other_files_know_are_single_tokens() {
    let object = |content: &str, special: bool| json!({ "content": content, "special": special, "normalized": false });
    let decoder = json!({ "added_tokens_decoder": {
        "258": object("<|im_start|>", true), "259": object("<|im_end|>", true), "261": object("<think>", false),
        "256": object("<|start|>", true),
    } });
    let model = opened(&[("tokenizer_config.json", decoder)]);
    let tokenizer = model.tokenizer();
    assert!(model.notes().is_empty(), "{:?}", model.notes());
    let ids = tokenizer.encode("<|im_start|>a<think><|im_end|><|start|><|end|>", false);
    assert_eq!(ids.expect("encodes"), [258, 97, 261, 259, 256, 257]);
    assert_eq!(
        [256, 257, 258, 259, 261].map(|id| tokenizer.is_special(id)),
        [true, true, true, true, false]
    );
    assert_eq!(
        tokenizer.decode(&[258, 97, 261], true).expect("decodes"),
        "a<think>"
    );

    let model = opened(&[
        (
            "added_tokens.json",
            json!({ "<|im_end|>": 258, "<tool>": 259 }),
        ),
        (
            "special_tokens_map.json",
            json!({ "eos_token": "<|im_end|>" }),
        ),
    ]);
    let ids = model.tokenizer().encode("<tool>x<|im_end|>", false);
    assert_eq!(ids.expect("encodes"), [259, 120, 258]);
    assert!(model.tokenizer().is_special(258) && !model.tokenizer().is_special(259));
}

#[test]
fn a_token_of_the_vocabulary_that_is_named_special_is_one() {
    let model = opened(&[("tokenizer_config.json", json!({ "eos_token": "A" }))]);
    assert!(model.tokenizer().is_special(65));
    assert_eq!(model.generation().eos, [257, 65]);
}

#[test]
fn a_special_token_without_an_id_takes_the_next_one() {
    let names = json!({
        "additional_special_tokens": ["<third>"], "pad_token": "<second>", "bos_token": "<first>", "unk_token": "",
    });
    for file in ["tokenizer_config.json", "special_tokens_map.json"] {
        let model = opened(&[(file, names.clone())]);
        let ids = model.tokenizer().encode("<third>a<first><second>", false);
        assert_eq!(ids.expect("encodes"), [260, 97, 258, 259], "{file}");
        assert!(model.tokenizer().is_special(260) && model.notes().is_empty());
    }
    // No row of the table is left for it.
    let mut config = support::llama_config();
    config["vocab_size"] = json!(258);
    let model = opened(&[("config.json", config), ("tokenizer_config.json", names)]);
    assert_eq!(model.tokenizer().token_to_id("<third>"), None);
    assert_eq!(model.notes().len(), 3, "{:?}", model.notes());
}

#[test]
fn added_tokens_without_a_place_are_left_out_with_a_note() {
    let decoder = json!({
        "300": { "content": "<past the end>" }, "97": { "content": "<taken>" }, "x": { "content": "<no id>" }, "258": 7,
    });
    let model = opened(&[
        (
            "tokenizer_config.json",
            json!({ "added_tokens_decoder": decoder }),
        ),
        ("added_tokens.json", json!({ "<negative>": -1 })),
    ]);
    for token in [
        "<past the end>",
        "<taken>",
        "\"x\"",
        "\"258\"",
        "<negative>",
    ] {
        let notes = model.notes();
        assert!(
            notes.iter().any(|note| note.contains(token)),
            "{token}: {notes:?}"
        );
    }
    let ids = model.tokenizer().encode("<taken>", false).expect("encodes");
    assert_eq!(ids.len(), "<taken>".len());
    let listed = json!({ "added_tokens_decoder": [{ "content": "<listed>" }] });
    let model = opened(&[("tokenizer_config.json", listed)]);
    let notes = model.notes();
    assert!(notes.iter().any(|note| note.contains("by id")), "{notes:?}");
}

#[test]
fn a_vocabulary_that_is_a_list_goes_on_at_its_end() {
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": null, "added_tokens": [],
        "model": { "type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.5], ["b", -2.0]], "byte_fallback": false },
    });
    let model = opened(&[
        ("tokenizer.json", tokenizer),
        (
            "added_tokens.json",
            json!({ "<x>": 3, "<y>": 4, "<gap>": 9 }),
        ),
        ("tokenizer_config.json", json!({ "unk_token": "<unk>" })),
    ]);
    let ids = model.tokenizer().encode("a<y>b<x>", false);
    assert_eq!(ids.expect("encodes"), [1, 4, 2, 3]);
    assert!(model.tokenizer().is_special(0));
    assert!(
        model.notes().len() == 1 && model.notes()[0].contains("<gap>"),
        "{:?}",
        model.notes()
    );
}

#[test]
fn every_end_token_ends_a_text() {
    // Only in tokenizer_config.json, or only in special_tokens_map.json: neither config.json nor generation_config.json has one.
    let mut config = support::llama_config();
    config["eos_token_id"] = Value::Null;
    let end = json!({ "eos_token": "<|end|>" });
    for file in ["tokenizer_config.json", "special_tokens_map.json"] {
        let model = opened(&[("config.json", config.clone()), (file, end.clone())]);
        assert_eq!(model.generation().eos, [257], "{file}");
    }
    // The end of a turn, which the template alone knows.
    let decoder = json!({ "258": { "content": "<|im_start|>", "special": true }, "259": { "content": "<|im_end|>", "special": true } });
    let chat =
        json!({ "chat_template": CHATML, "added_tokens_decoder": decoder, "eos_token": "<|end|>" });
    let model = opened(&[("tokenizer_config.json", chat.clone())]);
    assert_eq!(model.generation().eos, [257, 259]);
    // A template that wants a system message has it too.
    let mut strict = chat.clone();
    let wants = "{% if messages[0].role != 'system' %}{{ raise_exception('rules?') }}{% endif %}";
    strict["chat_template"] = format!("{wants}{CHATML}").into();
    let model = opened(&[("tokenizer_config.json", strict)]);
    assert_eq!(model.generation().eos, [257, 259]);
    let generation = ("generation_config.json", json!({ "eos_token_id": 5 }));
    let model = opened(&[("tokenizer_config.json", chat.clone()), generation]);
    assert_eq!(model.generation().eos, [5, 257, 259]);
    // A template that fails, or puts no token after an answer, adds none.
    for template in [
        "{{ raise_exception('no') }}",
        "{% for m in messages %}{{ m.content }}\n{% endfor %}",
    ] {
        let model = opened(&[(
            "tokenizer_config.json",
            json!({ "chat_template": template }),
        )]);
        assert_eq!(model.generation().eos, [257], "{template}");
    }
    // Ids below zero: nothing ends a text.
    for off in [json!(-1), json!([-1])] {
        let generation = ("generation_config.json", json!({ "eos_token_id": off }));
        let model = opened(&[("tokenizer_config.json", chat.clone()), generation]);
        assert!(model.generation().eos.is_empty());
        assert_eq!(model.generation().notes.len(), 1);
    }
}
