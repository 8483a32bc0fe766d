//! SentencePiece's BPE (`llama`): neighbours are merged into the piece of the highest score, the leftmost first.
//!
//! tokenizer.json knows pairs in order instead (`merges`). Spaces are `▁`, and one is put before a text (`add_space_prefix`): once where
//! `[INST]` is a token of its own, as in Mistral's vocabularies from v2 on, before every stretch of text between added tokens elsewhere,
//! as in those of Llama 2 and Mistral v0.1. Gemma's puts none. A character without a token becomes its bytes.
//!
//! User-defined tokens are found before anything is merged, the longest first. Gemma has such tokens for runs of spaces, which
//! converters spell with spaces: SentencePiece looks for them in a text whose spaces are `▁` already, so that a `▁` of the text counts too.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::merges::merges;
use super::rebuild::Parts;
use super::vocabulary::{TokenType, Vocabulary, fault};
use crate::GgufError;
use crate::gguf::import::config::unsupported;
use crate::gguf::metadata::{Metadata, required};

/// Types that tokens of such a vocabulary have.
pub(super) const TYPES: &[TokenType] = &[
    TokenType::Normal,
    TokenType::Unknown,
    TokenType::Control,
    TokenType::UserDefined,
    TokenType::Unused,
    TokenType::Byte,
];

/// Tokens of Phi-3's vocabulary that take blanks and line ends after them along.
const PHI3_MARKS: &[&str] = &[
    "</s>",
    "<|assistant|>",
    "<|placeholder1|>",
    "<|placeholder2|>",
    "<|placeholder3|>",
    "<|placeholder4|>",
    "<|system|>",
    "<|end|>",
    "<|placeholder5|>",
    "<|placeholder6|>",
    "<|user|>",
];

const SCORES: &str = "tokenizer.ggml.scores";
/// Characters that are rewritten before anything else.
const CHARACTERS: &str = "tokenizer.ggml.precompiled_charsmap";
const SPACE: char = '\u{2581}';

/// The parts of tokenizer.json.
pub(super) fn parts(
    metadata: &Metadata,
    vocabulary: &Vocabulary<'_>,
    unknown: Option<u32>,
) -> Result<Parts, GgufError> {
    for name in ["remove_extra_whitespaces", "treat_whitespace_as_suffix"] {
        let key = format!("tokenizer.ggml.{name}");
        if metadata.flag(&key)? == Some(true) {
            return Err(unsupported(&key, "true", "false"));
        }
    }
    let rewritten = metadata.integers(CHARACTERS)?.unwrap_or_default();
    if !rewritten.is_empty() {
        let got = format!("{} bytes", rewritten.len());
        return Err(unsupported(
            CHARACTERS,
            &got,
            "none: characters as they are",
        ));
    }
    let scores = required(SCORES, metadata.floats(SCORES))?;
    if scores.len() != vocabulary.len() {
        let (tokens, scores) = (vocabulary.len(), scores.len());
        return Err(fault(format!("{tokens} tokens and {scores} scores")));
    }
    let bytes = has_bytes(vocabulary)?;
    let unknown = unknown.and_then(|id| vocabulary.token(id));
    if !bytes && unknown.is_none() {
        let reason = "characters that are no tokens have neither bytes nor an unknown token";
        return Err(fault(reason.to_owned()));
    }
    let prefix_space = metadata
        .flag("tokenizer.ggml.add_space_prefix")?
        .unwrap_or(true);
    let (normalizer, pre_tokenizer) = spaces(prefix_space, has_instructions(vocabulary));
    Ok(Parts {
        normalizer,
        pre_tokenizer,
        decoder: decoder(prefix_space),
        model: json!({
            "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": bytes,
            "ignore_merges": false, "vocab": vocabulary.ids(), "merges": merges(vocabulary, &scores)?,
        }),
        add_bos: true,
        prefix_space,
    })
}

/// The marks of a Phi-3 that take blanks along, which a GGUF file does not say. Its type of `</s>` tells: an added token that is not
/// special where marks take them, a special one in releases whose marks do not.
pub(super) fn phi3_marks(vocabulary: &Vocabulary<'_>) -> &'static [&'static str] {
    let later = vocabulary
        .iter()
        .any(|(_, text, kind)| text == "</s>" && kind == TokenType::UserDefined);
    if later { PHI3_MARKS } else { &[] }
}

/// Tells whether an added token is looked for where spaces are `▁` already.
pub(super) fn is_spaced(content: &str) -> bool {
    content.contains([' ', SPACE])
}

/// Normalizer and pre-tokenizer that turn spaces into `▁` and put one in front.
fn spaces(prefix: bool, once: bool) -> (Value, Value) {
    let replace = json!({ "type": "Replace", "pattern": { "String": " " }, "content": SPACE });
    match (prefix, once) {
        (false, _) => (replace, Value::Null),
        (true, true) => {
            let first = json!({
                "type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first", "split": false,
            });
            (Value::Null, first)
        }
        (true, false) => {
            let prepend = json!({ "type": "Prepend", "prepend": SPACE });
            let both = json!({ "type": "Sequence", "normalizers": [prepend, replace] });
            (both, Value::Null)
        }
    }
}

fn decoder(prefix_space: bool) -> Value {
    let mut steps = vec![
        json!({ "type": "Replace", "pattern": { "String": SPACE }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if prefix_space {
        steps.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    json!({ "type": "Sequence", "decoders": steps })
}

/// Tells whether instructions are marked by tokens of their own.
fn has_instructions(vocabulary: &Vocabulary<'_>) -> bool {
    vocabulary
        .iter()
        .any(|(_, text, kind)| text == "[INST]" && kind == TokenType::Control)
}

/// Tells whether every byte has a token: all or none.
fn has_bytes(vocabulary: &Vocabulary<'_>) -> Result<bool, GgufError> {
    let mut found = HashSet::new();
    for (id, text, kind) in vocabulary.iter() {
        match byte(text) {
            Some(byte) if kind != TokenType::Unused => drop(found.insert(byte)),
            None if kind == TokenType::Byte => {
                let rule = "<0x00> to <0xFF> are";
                return Err(fault(format!("token {id} ({text:?}) is no byte, {rule}")));
            }
            _ => {}
        }
    }
    match found.len() {
        256 => Ok(true),
        0 => Ok(false),
        some => Err(fault(format!("{some} of 256 bytes have a token"))),
    }
}

/// The byte that a token stands for, such as `<0x0A>`.
fn byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let number = u8::from_str_radix(digits, 16).ok()?;
    (token == format!("<{number:#04X}>")).then_some(number)
}
