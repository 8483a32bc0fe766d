//! tokenizer.json and tokenizer_config.json from GGUF metadata.
//!
//! GGUF keeps a byte-level BPE's tokens, types and merges, and only names the rule that splits text before merging. The rules
//! known here are `smollm` (single digits, then the GPT-2 pattern) and `qwen2` (its own pattern, after NFC). Token types:
//! 1 normal, 3 control (added, special), 4 user-defined (added, not special), 5 unused (a row of the table with no token).

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::config::{TokenMetadata, unsupported};
use crate::GgufError;
use crate::gguf::metadata::{Metadata, required};

const NORMAL: i128 = 1;
const CONTROL: i128 = 3;
const USER_DEFINED: i128 = 4;
const UNUSED: i128 = 5;

/// Splits of the `qwen2` rule: contractions, words with one leading mark, single digits, punctuation runs, line ends, blanks.
const QWEN2_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The two tokenizer files and the token metadata for config.json.
pub(super) struct Rebuilt {
    pub(super) token_metadata: TokenMetadata,
    pub(super) tokenizer: Value,
    pub(super) tokenizer_config: Value,
}

/// Rebuilds the tokenizer.
pub(super) fn rebuild(
    metadata: &Metadata,
    context_length: Option<u64>,
) -> Result<Rebuilt, GgufError> {
    let model = "tokenizer.ggml.model";
    let name = required(model, metadata.text(model))?;
    if name != "gpt2" {
        return Err(unsupported(model, name, "gpt2 (byte-level BPE)"));
    }
    let (normalizer, pre_tokenizer) = split_rule(metadata)?;
    let key = "tokenizer.ggml.tokens";
    let tokens = required(key, metadata.texts(key))?;
    let key = "tokenizer.ggml.token_type";
    let types = required(key, metadata.integers(key))?;
    check(&tokens, &types)?;
    let token_metadata = TokenMetadata {
        vocab_size: tokens.len(),
        bos: id(metadata, "tokenizer.ggml.bos_token_id", tokens.len())?,
        eos: id(metadata, "tokenizer.ggml.eos_token_id", tokens.len())?,
        padding: id(metadata, "tokenizer.ggml.padding_token_id", tokens.len())?,
    };

    let used = || {
        tokens
            .iter()
            .zip(&types)
            .enumerate()
            .filter(|(_, (_, kind))| **kind != UNUSED)
    };
    let vocab: Map<String, Value> = used()
        .map(|(id, (token, _))| ((*token).to_owned(), id.into()))
        .collect();
    let added: Vec<Value> = used()
        .filter(|(_, (_, kind))| **kind != NORMAL)
        .map(|(id, (token, kind))| added_token(id, token, *kind == CONTROL))
        .collect();
    let text = |id: Option<u32>| id.and_then(|id| tokens.get(id as usize).copied());
    let prepend = metadata
        .flag("tokenizer.ggml.add_bos_token")?
        .unwrap_or(false);
    let post_processor = match (prepend, token_metadata.bos, text(token_metadata.bos)) {
        (true, Some(id), Some(token)) => prepend_token(id, token),
        _ => Value::Null,
    };
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": post_processor,
        "decoder": byte_level(true, true),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges(metadata)?,
        },
    });
    let tokenizer_config = json!({
        "add_prefix_space": false,
        "clean_up_tokenization_spaces": false,
        "bos_token": text(token_metadata.bos),
        "eos_token": text(token_metadata.eos),
        "pad_token": text(token_metadata.padding),
        "model_max_length": context_length,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": metadata.text("tokenizer.chat_template")?,
    });
    Ok(Rebuilt {
        token_metadata,
        tokenizer,
        tokenizer_config,
    })
}

/// Normalizer and pre-tokenizer of the named rule.
fn split_rule(metadata: &Metadata) -> Result<(Value, Value), GgufError> {
    let key = "tokenizer.ggml.pre";
    let sequence = |first: Value, second: Value| json!({ "type": "Sequence", "pretokenizers": [first, second] });
    match required(key, metadata.text(key))? {
        "smollm" => {
            let digits = json!({ "type": "Digits", "individual_digits": true });
            Ok((Value::Null, sequence(digits, byte_level(false, true))))
        }
        "qwen2" => {
            let pattern = json!({ "Regex": QWEN2_PATTERN });
            let split = json!({ "type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false });
            Ok((
                json!({ "type": "NFC" }),
                sequence(split, byte_level(false, false)),
            ))
        }
        other => Err(unsupported(key, other, "smollm and qwen2")),
    }
}

fn byte_level(prefix_space: bool, regex: bool) -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": prefix_space, "trim_offsets": true, "use_regex": regex })
}

fn added_token(id: usize, content: &str, special: bool) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": special,
    })
}

/// A post-processor that puts one token before every text.
fn prepend_token(id: u32, token: &str) -> Value {
    let special = json!({ "SpecialToken": { "id": token, "type_id": 0 } });
    let part = |id: &str, kind: u32| json!({ "Sequence": { "id": id, "type_id": kind } });
    let mut specials = Map::new();
    specials.insert(
        token.to_owned(),
        json!({ "id": token, "ids": [id], "tokens": [token] }),
    );
    json!({
        "type": "TemplateProcessing",
        "single": [special, part("A", 0)],
        "pair": [special, part("A", 0), part("B", 1)],
        "special_tokens": specials,
    })
}

fn merges(metadata: &Metadata) -> Result<Vec<[&str; 2]>, GgufError> {
    let key = "tokenizer.ggml.merges";
    let pair = |merge: &'_ str| -> Result<(), GgufError> {
        Err(GgufError::Vocabulary {
            reason: format!("merge {merge:?} is not two tokens with one space between"),
        })
    };
    let mut pairs = Vec::new();
    for merge in required(key, metadata.texts(key))? {
        match merge.split_once(' ') {
            Some((left, right))
                if !left.is_empty() && !right.is_empty() && !right.contains(' ') =>
            {
                pairs.push([left, right]);
            }
            _ => pair(merge)?,
        }
    }
    Ok(pairs)
}

fn check(tokens: &[&str], types: &[i128]) -> Result<(), GgufError> {
    let fault = |reason: String| Err(GgufError::Vocabulary { reason });
    if tokens.is_empty() || tokens.len() != types.len() {
        return fault(format!(
            "{} tokens and {} token types",
            tokens.len(),
            types.len()
        ));
    }
    let mut seen = HashSet::new();
    for (id, (token, kind)) in tokens.iter().zip(types).enumerate() {
        if !matches!(*kind, NORMAL | CONTROL | USER_DEFINED | UNUSED) {
            return fault(format!(
                "token {id} has type {kind}, supported are 1, 3, 4 and 5"
            ));
        }
        if *kind != UNUSED && !seen.insert(*token) {
            return fault(format!("token {id} ({token:?}) stands twice"));
        }
    }
    Ok(())
}

fn id(metadata: &Metadata, key: &str, vocab_size: usize) -> Result<Option<u32>, GgufError> {
    let Some(id) = metadata.size(key)? else {
        return Ok(None);
    };
    match u32::try_from(id) {
        Ok(id) if (id as usize) < vocab_size => Ok(Some(id)),
        _ => Err(GgufError::Vocabulary {
            reason: format!("{key} is {id}, there are {vocab_size} tokens"),
        }),
    }
}
