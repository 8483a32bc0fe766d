//! tokenizer.json files on which the library panics: each is an error with its words.

use serde_json::{Value, json};
use sparse_accelerate_checkpoint::{TextError, Tokenizer};

/// Two letters and what they make.
fn file(change: impl FnOnce(&mut Value)) -> String {
    let mut file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]
        }
    });
    change(&mut file);
    file.to_string()
}

fn reason(text: &str) -> String {
    match Tokenizer::from_json(text) {
        Err(TextError::Tokenizer { reason }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_file_itself_is_taken() {
    let tokenizer = Tokenizer::from_json(&file(|_| {})).expect("a tokenizer");
    assert_eq!(tokenizer.encode("abab", true).expect("ids"), [2, 2]);
}

#[test]
fn a_prefix_longer_than_a_merges_right_side_is_refused() {
    let text = file(|file| file["model"]["continuing_subword_prefix"] = json!("####"));
    let reason = reason(&text);
    assert!(!reason.is_empty() && reason.len() < 400, "{reason}");
}

#[test]
fn a_post_processor_with_a_token_it_does_not_define_is_refused() {
    let text = file(|file| {
        file["post_processor"] = json!({
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {}
        });
    });
    match Tokenizer::from_json(&text) {
        Err(error) => assert!(error.to_string().contains("tokenizer"), "{error}"),
        Ok(tokenizer) => {
            let error = tokenizer.encode("ab", true).expect_err("no such token");
            assert!(
                matches!(error, TextError::Encode { bytes: 2, .. }),
                "{error}"
            );
            // Without what the post-processor adds there is nothing wrong.
            assert_eq!(tokenizer.encode("ab", false).expect("ids"), [2]);
        }
    }
}

#[test]
fn a_decoder_that_is_none_is_refused() {
    for decoder in [
        json!({"type": "Strip"}),
        json!({"type": "Replace", "pattern": {"Regex": "("}, "content": ""}),
        json!({"type": "Sequence", "decoders": [{"type": "Fuse", "x": [1, {}]}, 7]}),
        json!({"type": "ByteFallback", "decoders": "\u{0}"}),
        json!("ByteLevel"),
        json!([[]]),
        json!({"type": 5}),
    ] {
        let text = file(|file| file["decoder"] = decoder.clone());
        if let Err(error) = Tokenizer::from_json(&text) {
            assert!(error.to_string().len() < 600, "{decoder}: {error}");
        }
    }
    // Cut in the middle of the decoder.
    let whole = file(|file| file["decoder"] = json!({"type": "Sequence", "decoders": []}));
    let at = whole.find("decoders").expect("a decoder");
    for end in at..at + 12 {
        let _ = reason(&whole[..end]);
        let broken = format!("{}}}}}{}", &whole[..end], &whole[end..]);
        let _ = reason(&broken);
    }
}
