//! Byte-level BPE: merges in order, over text that a rule has split before.
//!
//! The file only names the rule. Known are `smollm` (single digits, then the GPT-2 pattern), `qwen2` (its own pattern, after NFC),
//! `llama-bpe` (Llama 3's: up to three digits), `smaug-bpe` (the same for models whose texts have no beginning token, SmolLM3 among them),
//! `gpt-4o` (that of o200k, which Phi-4-mini has: words end before a capital, contractions go with them) and `tekken` (Mistral Nemo's:
//! neither contractions nor runs of digits). Under all but the first two a piece that is a token needs no merges. A file without a rule, or
//! with `default`, was converted before converters knew its model: which rule is right cannot be told from it.
//!
//! Converters tell rules apart by the ids of one text. Llama 3.1's published tokenizer gives those of `llama-bpe` with its beginning token
//! and those of `smaug-bpe` without, that of GPT-4o those of `gpt-4o`.

use serde_json::{Value, json};

use super::rebuild::Parts;
use super::vocabulary::{TokenType, Vocabulary, fault};
use crate::GgufError;
use crate::gguf::import::config::unsupported;
use crate::gguf::metadata::{Metadata, required};

/// Types that tokens of such a vocabulary have.
pub(super) const TYPES: &[TokenType] = &[
    TokenType::Normal,
    TokenType::Control,
    TokenType::UserDefined,
    TokenType::Unused,
];

const RULE: &str = "tokenizer.ggml.pre";
const RULES: &str = "gpt-4o, llama-bpe, qwen2, smaug-bpe, smollm and tekken; another way of splitting text gives other ids than the model knows: \
    convert the model again with a current converter, or use its Hugging Face directory";

/// Splits of the `qwen2` rule: contractions, words with one leading mark, single digits, punctuation runs, line ends, blanks.
const QWEN2_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same with up to three digits together.
const LLAMA3_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Words of small letters with capitals before them, or of capitals alone; single digits; slashes go with line ends.
const TEKKEN_PATTERN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Those words with contractions after them and up to three digits together.
const GPT4O_PATTERN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The parts of tokenizer.json.
pub(super) fn parts(metadata: &Metadata, vocabulary: &Vocabulary<'_>) -> Result<Parts, GgufError> {
    let prefix = "tokenizer.ggml.add_space_prefix";
    if metadata.flag(prefix)? == Some(true) {
        return Err(unsupported(prefix, "true", "false for byte-level BPE"));
    }
    let rule = metadata.text(RULE)?;
    let rule = rule.unwrap_or("missing");
    let (normalizer, first) = match rule {
        "smollm" => (
            Value::Null,
            json!({ "type": "Digits", "individual_digits": true }),
        ),
        "qwen2" => (json!({ "type": "NFC" }), split(QWEN2_PATTERN)),
        "llama-bpe" | "llama3" | "llama-v3" | "smaug-bpe" => (Value::Null, split(LLAMA3_PATTERN)),
        "gpt-4o" => (Value::Null, split(GPT4O_PATTERN)),
        "tekken" => (Value::Null, split(TEKKEN_PATTERN)),
        other => return Err(unsupported(RULE, other, RULES)),
    };
    let then_pattern = rule == "smollm";
    let begins = matches!(rule, "llama-bpe" | "llama3" | "llama-v3" | "tekken");
    let whole_tokens = !matches!(rule, "smollm" | "qwen2");
    let second = byte_level(false, then_pattern);
    Ok(Parts {
        normalizer,
        pre_tokenizer: json!({ "type": "Sequence", "pretokenizers": [first, second] }),
        decoder: byte_level(true, true),
        model: json!({
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": whole_tokens, "vocab": vocabulary.ids(), "merges": merges(metadata)?,
        }),
        add_bos: begins,
        prefix_space: false,
    })
}

fn split(pattern: &str) -> Value {
    let pattern = json!({ "Regex": pattern });
    json!({ "type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false })
}

/// The rules that are known, as the refusal of others names them.
pub(crate) fn rules() -> &'static str {
    RULES.split(';').next().unwrap_or_default()
}

fn byte_level(prefix_space: bool, regex: bool) -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": prefix_space, "trim_offsets": true, "use_regex": regex })
}

fn merges(metadata: &Metadata) -> Result<Vec<[&str; 2]>, GgufError> {
    let key = "tokenizer.ggml.merges";
    let mut pairs = Vec::new();
    for merge in required(key, metadata.texts(key))? {
        match merge.split_once(' ') {
            Some((left, right))
                if !left.is_empty() && !right.is_empty() && !right.contains(' ') =>
            {
                pairs.push([left, right]);
            }
            _ => {
                let reason = format!("merge {merge:?} is not two tokens with one space between");
                return Err(fault(reason));
            }
        }
    }
    Ok(pairs)
}
