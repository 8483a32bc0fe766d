//! Tokenizers of GGUF files against the implementations that their models were trained with.
//!
//! `fixtures/sentence_piece.json` has the ids of SentencePiece, `fixtures/byte_level.json` those of tiktoken, each made by the program of
//! that name. What would give other ids is refused.

mod support;

use serde::Deserialize;
use sparse_accelerate_checkpoint::{GgufError, ModelDir};
use support::gguf_file::{GgufBuilder, Meta, tiny_model};
use support::import::{F32, imported, refused};
use support::tokenizer::{
    Case, SentencePiece, encoded, fixture, sentence_piece, sentence_piece_group, streamed,
};
use tempfile::TempDir;

const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

#[derive(Clone, Deserialize)]
struct ByteLevel {
    tokens: Vec<String>,
    merges: Vec<String>,
    cases: Vec<Case>,
}

fn byte_level() -> ByteLevel {
    let all = fixture(include_str!("fixtures/byte_level.json"));
    serde_json::from_value(all).expect("tokens, merges and cases")
}

fn bpe(rule: Option<&str>) -> GgufBuilder {
    let ByteLevel { tokens, merges, .. } = byte_level();
    let mut gguf = tiny_model("llama");
    let mut all = tokens;
    let mut types = vec![1; all.len()];
    for text in ["<|begin|>", "<|end|>"] {
        all.push(text.to_owned());
        types.push(CONTROL);
    }
    gguf.set_tokens(&all, &types);
    gguf.set("tokenizer.ggml.merges", Meta::Texts(merges));
    gguf.set(
        "tokenizer.ggml.bos_token_id",
        Meta::U32(all.len() as u32 - 2),
    );
    gguf.set(
        "tokenizer.ggml.eos_token_id",
        Meta::U32(all.len() as u32 - 1),
    );
    gguf.metadata.retain(|(key, _)| key != "tokenizer.ggml.pre");
    if let Some(rule) = rule {
        gguf.set("tokenizer.ggml.pre", Meta::Text(rule.to_owned()));
    }
    gguf
}

fn open(gguf: &GgufBuilder) -> (TempDir, ModelDir) {
    imported(gguf, &F32)
}

#[test]
fn ids_are_those_of_sentence_piece() {
    let fixture = sentence_piece();
    for prefix in [true, false] {
        let mut gguf = fixture.gguf();
        if !prefix {
            gguf.set("tokenizer.ggml.add_space_prefix", Meta::Bool(false));
        }
        let (_dir, model) = open(&gguf);
        let tokenizer = model.tokenizer();
        let mut seen = 0;
        for case in fixture.cases.iter().filter(|case| case.prefix == prefix) {
            assert_eq!(
                encoded(tokenizer, &case.text),
                case.ids,
                "{:?}, prefix {prefix}",
                case.text
            );
            let text = case.text.replace('\u{2581}', " ");
            assert_eq!(tokenizer.decode(&case.ids, true).expect("decodes"), text);
            assert_eq!(streamed(tokenizer, &case.ids), text);
            seen += 1;
        }
        assert!(seen > 50);
    }
}

#[test]
fn what_is_unknown_stays_so_without_bytes() {
    let fixture = sentence_piece_group("no_bytes");
    let (_dir, model) = open(&fixture.gguf());
    for case in &fixture.cases {
        assert_eq!(
            encoded(model.tokenizer(), &case.text),
            case.ids,
            "{:?}",
            case.text
        );
    }
    assert!(fixture.cases.iter().any(|case| case.ids.contains(&0)));
}

#[test]
fn texts_begin_with_the_beginning_token_and_end_as_the_file_says() {
    let fixture = sentence_piece();
    let the = fixture.ids("the", true);
    for (begin, end, expected) in [
        (None, None, [&[1][..], &the].concat()),
        (Some(true), Some(false), [&[1][..], &the].concat()),
        (Some(false), None, the.clone()),
        (Some(false), Some(true), [&the[..], &[2]].concat()),
        (None, Some(true), [&[1][..], &the, &[2]].concat()),
    ] {
        let mut gguf = fixture.gguf();
        for (name, value) in [("add_bos_token", begin), ("add_eos_token", end)] {
            if let Some(value) = value {
                gguf.set(&format!("tokenizer.ggml.{name}"), Meta::Bool(value));
            }
        }
        let (_dir, model) = open(&gguf);
        assert_eq!(
            model.tokenizer().encode("the", true).expect("encodes"),
            expected
        );
        assert_eq!(encoded(model.tokenizer(), "the"), the);
    }
}

#[test]
fn a_space_is_put_before_every_stretch_of_text() {
    let mut fixture = sentence_piece();
    let the = fixture.ids("the", true);
    let turn = fixture.add("<|turn|>", USER_DEFINED, -1000.0);
    let (_dir, model) = open(&fixture.gguf());
    let tokenizer = model.tokenizer();
    let expected = [&[1][..], &the, &[2], &the, &[turn], &the].concat();
    assert_eq!(encoded(tokenizer, "<s>the</s>the<|turn|>the"), expected);
    assert!(tokenizer.is_special(1) && tokenizer.is_special(0) && !tokenizer.is_special(turn));
}

#[test]
fn a_space_is_put_before_the_text_alone_where_instructions_are_tokens() {
    let mut fixture = sentence_piece();
    let (with, without) = (fixture.ids("the", true), fixture.ids("the", false));
    let begin = fixture.add("[INST]", CONTROL, 0.0);
    let end = fixture.add("[/INST]", CONTROL, 0.0);
    let (_dir, model) = open(&fixture.gguf());
    let tokenizer = model.tokenizer();
    // The template writes a space before the text.
    let expected = [&[1, begin][..], &with, &[end], &without].concat();
    assert_eq!(encoded(tokenizer, "<s>[INST] the[/INST]the"), expected);
    assert_eq!(encoded(tokenizer, "the"), with);
    // A space that a text itself begins with is not doubled, as in the tokenizers published with these models.
    assert_eq!(encoded(tokenizer, " the"), with);
    let own = |case: &&Case| case.prefix && !case.text.starts_with([' ', '\u{2581}']);
    for case in fixture.cases.iter().filter(own) {
        assert_eq!(encoded(tokenizer, &case.text), case.ids, "{:?}", case.text);
    }
}

#[test]
fn pieces_of_one_score_are_refused() {
    let mut fixture = sentence_piece();
    for text in ["quu", "uqu"] {
        fixture.add(text, 1, -3000.0);
    }
    let error = refused(&fixture.gguf());
    assert!(matches!(&error, GgufError::Vocabulary { .. }), "{error}");
    let text = error.to_string();
    for part in ["quu", "uqu", "-3000", "Hugging Face"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_sentence_piece_vocabulary_that_contradicts_itself() {
    type Edit = fn(&mut SentencePiece);
    let edits: [(&str, Edit); 6] = [
        ("255 of 256 bytes", |all| {
            all.pieces[3 + 65] = ("AA".into(), 1, -5000.0);
        }),
        ("is no byte", |all| {
            all.add("<0xfg>", BYTE, 0.0);
        }),
        ("both stand for what is unknown", |all| {
            all.add("<unk2>", 2, 0.0);
        }),
        ("is unused, yet", |all| {
            all.add("quu", UNUSED, 0.0);
        }),
        ("has type 7", |all| {
            all.add("x7", 7, 0.0);
        }),
        ("stands twice", |all| {
            all.add("<s>", CONTROL, 0.0);
        }),
    ];
    for (reason, edit) in edits {
        let mut fixture = sentence_piece();
        edit(&mut fixture);
        let mut gguf = fixture.gguf();
        gguf.metadata
            .retain(|(key, _)| key != "tokenizer.ggml.unknown_token_id");
        let error = refused(&gguf);
        assert!(
            matches!(&error, GgufError::Vocabulary { .. }) && error.to_string().contains(reason),
            "{reason}: {error}"
        );
    }
}

#[test]
fn metadata_of_a_sentence_piece_vocabulary_that_is_missing_or_wrong() {
    let scores = "tokenizer.ggml.scores";
    let with = |key: &str, value: Option<Meta>| {
        let mut gguf = sentence_piece().gguf();
        gguf.metadata.retain(|(name, _)| name != key);
        if let Some(value) = value {
            gguf.set(key, value);
        }
        refused(&gguf)
    };
    assert!(matches!(with(scores, None), GgufError::MissingKey { key } if key == scores));
    let few = with(scores, Some(Meta::F32s(vec![0.0; 3])));
    assert!(few.to_string().contains("560 tokens and 3 scores"), "{few}");
    let odd = with(scores, Some(Meta::F32s(vec![f32::NAN; 560])));
    assert!(matches!(odd, GgufError::ValueType { .. }), "{odd}");
    let bos = "tokenizer.ggml.bos_token_id";
    assert!(matches!(with(bos, None), GgufError::MissingKey { key } if key == bos));
    for (name, value) in [
        ("remove_extra_whitespaces", Meta::Bool(true)),
        ("treat_whitespace_as_suffix", Meta::Bool(true)),
        ("precompiled_charsmap", Meta::I32s(vec![1])),
    ] {
        let key = format!("tokenizer.ggml.{name}");
        let error = with(&key, Some(value));
        assert!(
            matches!(&error, GgufError::Unsupported { key: named, .. } if *named == key),
            "{error}"
        );
    }

    let mut fixture = sentence_piece();
    fixture.add(&"long".repeat(65), 1, -9000.0);
    let error = refused(&fixture.gguf());
    assert!(
        matches!(
            error,
            GgufError::Limit {
                got: 260,
                limit: 256,
                ..
            }
        ),
        "{error}"
    );

    let mut bare = sentence_piece_group("no_bytes");
    bare.pieces[0].1 = CONTROL;
    let mut gguf = bare.gguf();
    gguf.metadata
        .retain(|(key, _)| key != "tokenizer.ggml.unknown_token_id");
    let error = refused(&gguf).to_string();
    assert!(
        error.contains("neither bytes nor an unknown token"),
        "{error}"
    );
}

#[test]
fn ids_are_those_of_tiktoken() {
    for (rule, recorded, begins) in [
        ("llama-bpe", "llama-bpe", true),
        ("llama3", "llama-bpe", true),
        ("llama-v3", "llama-bpe", true),
        ("smaug-bpe", "llama-bpe", false),
        ("gpt-4o", "gpt-4o", false),
        ("tekken", "tekken", true),
    ] {
        let (_dir, model) = open(&bpe(Some(rule)));
        let tokenizer = model.tokenizer();
        let cases = byte_level().cases.into_iter();
        let cases: Vec<Case> = cases.filter(|case| case.rule == recorded).collect();
        assert!(cases.len() > 20);
        for case in cases {
            // A special token in the text is one here.
            if case.text != "<|end|>" {
                let got = encoded(tokenizer, &case.text);
                assert_eq!(got, case.ids, "{rule}: {:?}", case.text);
            }
            assert_eq!(
                tokenizer.decode(&case.ids, true).expect("decodes"),
                case.text
            );
            assert_eq!(streamed(tokenizer, &case.ids), case.text);
        }
        let begin = tokenizer.token_to_id("<|begin|>").expect("there");
        let got = tokenizer.encode("a", true).expect("encodes");
        // As these rules have it where the file does not say.
        assert_eq!(got, [begin, 97][usize::from(!begins)..], "{rule}");
    }
    let mut gguf = bpe(Some("llama-bpe"));
    gguf.set("tokenizer.ggml.add_bos_token", Meta::Bool(false));
    let (_dir, model) = open(&gguf);
    assert_eq!(model.tokenizer().encode("a", true).expect("encodes"), [97]);
}

#[test]
fn a_rule_for_splitting_text_is_known_or_refused() {
    for (rule, got) in [
        (None, "missing"),
        (Some("default"), "default"),
        (Some("dbrx"), "dbrx"),
    ] {
        let error = refused(&bpe(rule));
        let key = "tokenizer.ggml.pre";
        assert!(
            matches!(&error, GgufError::Unsupported { key: named, got: value, .. } if named == key && value == got),
            "{error}"
        );
        let text = error.to_string();
        for part in [
            "gpt-4o",
            "llama-bpe",
            "qwen2",
            "smaug-bpe",
            "smollm",
            "tekken",
            "convert the model again",
            "Hugging Face",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}

#[test]
fn a_space_before_bytes_is_refused() {
    let key = "tokenizer.ggml.add_space_prefix";
    let mut gguf = bpe(Some("qwen2"));
    gguf.set(key, Meta::Bool(true));
    assert!(matches!(refused(&gguf), GgufError::Unsupported { key: named, .. } if named == key));
    gguf.set(key, Meta::Bool(false));
    open(&gguf);
}

#[test]
fn an_end_token_is_added_where_the_file_says_so() {
    let mut gguf = bpe(Some("qwen2"));
    gguf.set("tokenizer.ggml.add_eos_token", Meta::Bool(true));
    let (_dir, model) = open(&gguf);
    let end = model.tokenizer().token_to_id("<|end|>").expect("there");
    assert_eq!(
        model.tokenizer().encode("a", true).expect("encodes"),
        [97, end]
    );
    gguf.metadata
        .retain(|(key, _)| key != "tokenizer.ggml.eos_token_id");
    let key = "tokenizer.ggml.eos_token_id";
    assert!(matches!(refused(&gguf), GgufError::MissingKey { key: named } if named == key));
}
