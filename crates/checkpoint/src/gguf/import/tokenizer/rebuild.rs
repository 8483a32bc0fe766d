//! The two files, put together from their parts.

use serde_json::{Map, Value, json};

use super::vocabulary::Vocabulary;
use super::{byte_level, sentence_piece};
use crate::gguf::import::config::{TokenMetadata, unsupported};
use crate::gguf::metadata::{Metadata, required};
use crate::{Architecture, GgufError};

const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const PADDING: &str = "tokenizer.ggml.padding_token_id";
const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";

/// The two tokenizer files and the token metadata for config.json.
pub(in crate::gguf::import) struct Rebuilt {
    pub(in crate::gguf::import) token_metadata: TokenMetadata,
    pub(in crate::gguf::import) tokenizer: Value,
    pub(in crate::gguf::import) tokenizer_config: Value,
}

/// The parts of tokenizer.json that a kind of tokenizer settles.
pub(super) struct Parts {
    pub(super) normalizer: Value,
    pub(super) pre_tokenizer: Value,
    pub(super) decoder: Value,
    pub(super) model: Value,
    /// True if texts begin with the beginning-of-sequence token where the file does not say.
    pub(super) add_bos: bool,
    /// True if a space is put before a text.
    pub(super) prefix_space: bool,
}

/// Rebuilds the tokenizer.
pub(in crate::gguf::import) fn rebuild(
    metadata: &Metadata,
    architecture: Architecture,
    context_length: Option<u64>,
) -> Result<Rebuilt, GgufError> {
    let key = "tokenizer.ggml.model";
    let name = required(key, metadata.text(key))?;
    let (vocabulary, unknown, parts);
    let mut bare: &[&str] = &[];
    let mut spaced: fn(&str) -> bool = |_| false;
    match name {
        "gpt2" => {
            vocabulary = Vocabulary::read(metadata, byte_level::TYPES)?;
            unknown = None;
            parts = byte_level::parts(metadata, &vocabulary)?;
        }
        "llama" => {
            vocabulary = Vocabulary::read(metadata, sentence_piece::TYPES)?;
            unknown = vocabulary.id(metadata, UNKNOWN)?.or(vocabulary.unknown()?);
            parts = sentence_piece::parts(metadata, &vocabulary, unknown)?;
            if architecture == Architecture::Phi3 {
                bare = sentence_piece::phi3_marks(&vocabulary);
            }
            // A prefix would be put before tokens too.
            if !parts.prefix_space {
                spaced = sentence_piece::is_spaced;
            }
        }
        other => {
            let supported = "gpt2 (byte-level BPE) and llama (SentencePiece): use the Hugging Face directory of the model";
            return Err(unsupported(key, other, supported));
        }
    }
    let token_metadata = TokenMetadata {
        vocab_size: vocabulary.len(),
        bos: vocabulary.id(metadata, BOS)?,
        eos: vocabulary.id(metadata, EOS)?,
        padding: vocabulary.id(metadata, PADDING)?,
    };
    let text = |id: Option<u32>| id.and_then(|id| vocabulary.token(id));
    let flag = |name: &str| metadata.flag(&format!("tokenizer.ggml.{name}"));
    let around = |add: bool, key: &str, id: Option<u32>| match (add, id, text(id)) {
        (false, ..) => Ok(None),
        (true, Some(id), Some(token)) => Ok(Some((id, token))),
        (true, ..) => Err(GgufError::MissingKey {
            key: key.to_owned(),
        }),
    };
    let begin = flag("add_bos_token")?.unwrap_or(parts.add_bos);
    let first = around(begin, BOS, token_metadata.bos)?;
    let last = around(
        flag("add_eos_token")?.unwrap_or(false),
        EOS,
        token_metadata.eos,
    )?;
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": vocabulary.added(bare, spaced),
        "normalizer": parts.normalizer,
        "pre_tokenizer": parts.pre_tokenizer,
        "post_processor": surround(first, last),
        "decoder": parts.decoder,
        "model": parts.model,
    });
    let tokenizer_config = json!({
        "add_prefix_space": parts.prefix_space,
        "clean_up_tokenization_spaces": false,
        "bos_token": text(token_metadata.bos),
        "eos_token": text(token_metadata.eos),
        "unk_token": text(unknown),
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

/// A post-processor that puts one token before every text and one after it, where there are such.
fn surround(first: Option<(u32, &str)>, last: Option<(u32, &str)>) -> Value {
    if first.or(last).is_none() {
        return Value::Null;
    }
    let mut specials = Map::new();
    for (id, token) in first.into_iter().chain(last) {
        let entry = json!({ "id": token, "ids": [id], "tokens": [token] });
        specials.insert(token.to_owned(), entry);
    }
    let text = |sequence: &str, kind: u32| {
        let special =
            |(_, token): (u32, &str)| json!({ "SpecialToken": { "id": token, "type_id": kind } });
        let sequence = json!({ "Sequence": { "id": sequence, "type_id": kind } });
        let parts = first.map(special).into_iter().chain([sequence]);
        parts.chain(last.map(special)).collect::<Vec<_>>()
    };
    let single = text("A", 0);
    let pair: Vec<Value> = single.iter().cloned().chain(text("B", 1)).collect();
    json!({ "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": specials })
}
