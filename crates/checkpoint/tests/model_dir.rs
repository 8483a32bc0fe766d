//! Opening a model directory: which files are needed, what falls back to what, and tokenizer, stream and chat template.
//!
//! The tokenizer has one token per byte, so every character beyond ASCII is cut in pieces.

mod support;

use std::fs;

use serde_json::json;
use sparse_accelerate_checkpoint::{
    ChatDate, ChatMessage, ChatTemplate, CheckpointError, InspectionKind, ModelDir, TextError,
    Tokenizer, inspect,
};
use support::{byte_tokenizer, llama_config, model_dir, put};

const TEXT: &str = "na\u{ef}ve \u{65e5}\u{672c}\u{8a9e} \u{1f642}\r\n\t42";

fn tokenizer() -> Tokenizer {
    Tokenizer::from_json(&byte_tokenizer().to_string()).expect("sound")
}

fn chat(template: &str) -> Result<String, TextError> {
    let messages = [
        ChatMessage::new("user", " hi "),
        ChatMessage::new("assistant", "yo"),
    ];
    ChatTemplate::new(template, [("bos_token", "<s>")].into_iter().collect())?.render(
        &messages,
        true,
        ChatDate::Fixed,
    )
}

#[test]
fn a_directory_opens_and_falls_back_to_config() {
    let dir = model_dir();
    let model = ModelDir::open(dir.path()).expect("sound");
    assert_eq!(model.path(), dir.path());
    assert_eq!(model.config().layers, 2);
    assert_eq!(
        (model.generation().eos.as_slice(), model.generation().bos),
        (&[257][..], Some(256))
    );
    assert_eq!(
        model.chat_template().expect_err("a base model"),
        TextError::NoTemplate
    );
    put(
        dir.path(),
        "generation_config.json",
        br#"{"eos_token_id": [5, 6], "do_sample": true}"#,
    );
    let model = ModelDir::open(dir.path()).expect("sound");
    assert_eq!(
        (model.generation().eos.as_slice(), model.generation().bos),
        (&[5, 6][..], Some(256))
    );
    put(
        dir.path(),
        "generation_config.json",
        br#"{"eos_token_id": 300}"#,
    );
    assert!(matches!(
        ModelDir::open(dir.path()),
        Err(CheckpointError::Config(_))
    ));
}

#[test]
fn missing_files_are_named() {
    for file in ["config.json", "tokenizer.json"] {
        let dir = model_dir();
        fs::remove_file(dir.path().join(file)).expect("it is there");
        let error = ModelDir::open(dir.path()).expect_err("a file is missing");
        assert!(
            matches!(error, CheckpointError::MissingFile { file: named, .. } if named == file),
            "{error}"
        );
    }
    let dir = model_dir();
    let error = ModelDir::open(dir.path().join("nowhere.gguf")).expect_err("no directory");
    assert!(error.to_string().contains("imported"), "{error}");
}

#[test]
fn a_file_far_too_large_is_not_read() {
    let dir = model_dir();
    let file = fs::File::create(dir.path().join("config.json")).expect("writable");
    file.set_len(17 << 20).expect("a sparse file");
    assert!(matches!(
        ModelDir::open(dir.path()),
        Err(CheckpointError::FileTooLarge { .. })
    ));
}

#[test]
fn a_tokenizer_of_another_model() {
    let dir = model_dir();
    let mut config = llama_config();
    config["vocab_size"] = json!(255);
    config["eos_token_id"] = json!(0);
    config["bos_token_id"] = json!(0);
    put(dir.path(), "config.json", config.to_string().as_bytes());
    let error = ModelDir::open(dir.path()).expect_err("256 bytes and 255 rows");
    assert!(
        matches!(
            error,
            CheckpointError::VocabMismatch {
                tokenizer_max: 257,
                vocab_size: 255
            }
        ),
        "{error}"
    );
}

#[test]
fn a_tokenizer_that_is_none() {
    for text in [
        "",
        "{}",
        "[]",
        r#"{"model":{"type":"BPE","vocab":{},"merges":[]}}"#,
    ] {
        assert!(
            matches!(Tokenizer::from_json(text), Err(TextError::Tokenizer { .. })),
            "{text}"
        );
    }
}

#[test]
fn text_makes_the_round_trip_untruncated() {
    let tokenizer = tokenizer();
    let ids = tokenizer.encode(TEXT, true).expect("encodes");
    // The file asks for a truncation to two tokens, which is not done.
    assert_eq!(ids.len(), TEXT.len());
    assert_eq!(tokenizer.decode(&ids, true).expect("decodes"), TEXT);
    assert_eq!(tokenizer.vocab_size(), 258);
    assert_eq!(tokenizer.token_to_id("<|end|>"), Some(257));
    assert_eq!(tokenizer.id_to_token(257).as_deref(), Some("<|end|>"));
    assert_eq!(
        (
            tokenizer.id_to_token(258),
            tokenizer.is_special(256),
            tokenizer.is_special(65)
        ),
        (None, true, false)
    );
    let ids = tokenizer.encode("<|start|>a", false).expect("encodes");
    assert_eq!(ids, [256, 97]);
    assert_eq!(tokenizer.decode(&ids, true).expect("decodes"), "a");
    assert_eq!(
        tokenizer.decode(&ids, false).expect("decodes"),
        "<|start|>a"
    );
}

#[test]
fn a_stream_never_cuts_a_character() {
    let tokenizer = tokenizer();
    let mut stream = tokenizer.stream();
    let mut pieces = Vec::new();
    for id in tokenizer.encode(TEXT, false).expect("encodes") {
        pieces.extend(stream.push(id).expect("decodes"));
        assert!(
            stream.push(256).expect("decodes").is_none(),
            "special tokens give nothing"
        );
    }
    assert!(
        pieces
            .iter()
            .all(|piece| !piece.contains('\u{fffd}') && !piece.is_empty())
    );
    assert_eq!(pieces.concat(), TEXT);
    assert_eq!(pieces.len(), TEXT.chars().count());
    assert_eq!(stream.flush(), None);
}

#[test]
fn a_stream_gives_an_unfinished_character_at_the_end_only() {
    let tokenizer = tokenizer();
    let mut stream = tokenizer.stream();
    for id in tokenizer
        .encode("a\u{1f642}", false)
        .expect("encodes")
        .into_iter()
        .take(3)
    {
        let piece = stream.push(id).expect("decodes");
        assert!(piece.is_none_or(|piece| piece == "a"));
    }
    assert_eq!(stream.flush().as_deref(), Some("\u{fffd}"));
    assert_eq!(stream.flush(), None);
    assert_eq!(stream.push(97).expect("decodes").as_deref(), Some("a"));
}

#[test]
fn bytes_that_are_no_text_do_not_stall_a_stream() {
    let tokenizer = tokenizer();
    let mut stream = tokenizer.stream();
    let stray = tokenizer.token_to_id("\u{ff}").expect("the byte 255");
    let mut out = String::new();
    for _ in 0..300 {
        out.extend(stream.push(stray).expect("decodes"));
    }
    assert!(!out.is_empty());
    out.extend(stream.flush());
    assert_eq!(out.chars().count(), 300);
}

#[test]
fn templates_render_as_the_reference_does() {
    let template = "{{ bos_token }}\n{%- for m in messages %}\n    {% if m['role'] == 'user' %}\n[{{ m['content'].strip() | upper }}]\n    \
                    {%- elif not tools %}{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}>{% endif %}";
    assert_eq!(chat(template).expect("renders"), "<s>[HI]yo>");
    assert_eq!(
        chat("{% for m in messages %}{{ m.role }}{% break %}{% endfor %}").expect("renders"),
        "user"
    );
    assert_eq!(chat("{{ eos_token }}").expect("renders"), "");
}

#[test]
fn templates_refuse_and_fail_typed() {
    let error = chat("{{ raise_exception('roles must alternate') }}").expect_err("refuses");
    assert!(
        matches!(&error, TextError::TemplateRender { reason } if reason.contains("roles must alternate")),
        "{error}"
    );
    assert!(matches!(
        chat("{% for %}"),
        Err(TextError::TemplateSyntax { .. })
    ));
    assert!(matches!(
        chat("{{ messages.frobnicate() }}"),
        Err(TextError::TemplateRender { .. })
    ));
}

#[test]
fn the_template_is_found_in_each_of_its_places() {
    let dir = model_dir();
    let put_config = |value: serde_json::Value| {
        put(
            dir.path(),
            "tokenizer_config.json",
            value.to_string().as_bytes(),
        )
    };
    let rendered = || -> Result<String, CheckpointError> {
        let model = ModelDir::open(dir.path())?;
        Ok(model.chat_template()?.render(&[], false, ChatDate::Fixed)?)
    };
    put_config(
        json!({ "chat_template": "one{{ eos_token }}", "eos_token": { "content": "<e>" }, "bos_token": null }),
    );
    assert_eq!(rendered().expect("sound"), "one<e>");
    put_config(
        json!({ "chat_template": [{ "name": "tool", "template": "x" }, { "name": "default", "template": "two" }] }),
    );
    assert_eq!(rendered().expect("sound"), "two");
    put_config(json!({ "chat_template": [{ "name": "tool", "template": "x" }] }));
    assert!(matches!(
        rendered(),
        Err(CheckpointError::Text(TextError::TokenizerConfig {
            field: "chat_template",
            ..
        }))
    ));
    put_config(json!({ "bos_token": 7 }));
    assert!(matches!(
        rendered(),
        Err(CheckpointError::Text(TextError::TokenizerConfig {
            field: "bos_token",
            ..
        }))
    ));
    put_config(json!({ "chat_template": "one" }));
    put(dir.path(), "chat_template.jinja", b"three");
    assert_eq!(rendered().expect("sound"), "three");
}

#[test]
fn inspection_describes_what_cannot_be_loaded() {
    let dir = model_dir();
    put(
        dir.path(),
        "config.json",
        br#"{"architectures": ["PhiForCausalLM"]}"#,
    );
    let seen = inspect(dir.path()).expect("sound files");
    assert_eq!(
        (seen.kind, seen.tensors.len(), seen.total_bytes),
        (InspectionKind::ModelDir, 2, 20)
    );
    assert_eq!(seen.metadata["architectures"][0], "PhiForCausalLM");
    assert!(
        serde_json::to_string(&seen)
            .expect("serialises")
            .contains("\"model-dir\"")
    );
    assert!(matches!(
        inspect(&dir.path().join("config.json")),
        Err(CheckpointError::UnknownFormat { .. })
    ));
    assert!(matches!(
        inspect(&dir.path().join("none.gguf")),
        Err(CheckpointError::Io { .. })
    ));
}
