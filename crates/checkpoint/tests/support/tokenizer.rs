//! Vocabularies and the ids that the program of a tokenizer gives to texts: `fixtures/sentence_piece.json`.

use serde::Deserialize;
use serde_json::Value;
use sparse_accelerate_checkpoint::Tokenizer;

use super::gguf_file::{GgufBuilder, Meta, tiny_model};

#[derive(Clone, Deserialize)]
pub(crate) struct SentencePiece {
    pub(crate) pieces: Vec<(String, i32, f32)>,
    pub(crate) cases: Vec<Case>,
}

#[derive(Clone, Deserialize)]
pub(crate) struct Case {
    #[serde(default)]
    pub(crate) prefix: bool,
    #[serde(default)]
    pub(crate) rule: String,
    pub(crate) text: String,
    pub(crate) ids: Vec<u32>,
}

pub(crate) fn fixture(text: &str) -> Value {
    serde_json::from_str(text).expect("the fixture is JSON")
}

pub(crate) fn sentence_piece() -> SentencePiece {
    let all = fixture(include_str!("../fixtures/sentence_piece.json"));
    serde_json::from_value(all).expect("pieces and cases")
}

/// The vocabulary of a group of the fixture: `no_bytes` or `gemma`.
pub(crate) fn sentence_piece_group(group: &str) -> SentencePiece {
    let mut all = fixture(include_str!("../fixtures/sentence_piece.json"));
    serde_json::from_value(all[group].take()).expect("pieces and cases")
}

impl SentencePiece {
    pub(crate) fn gguf(&self) -> GgufBuilder {
        self.gguf_of("llama")
    }

    pub(crate) fn gguf_of(&self, architecture: &str) -> GgufBuilder {
        let mut gguf = tiny_model(architecture);
        let texts: Vec<String> = self.pieces.iter().map(|piece| piece.0.clone()).collect();
        let types: Vec<i32> = self.pieces.iter().map(|piece| piece.1).collect();
        gguf.set_tokens(&texts, &types);
        let scores = self.pieces.iter().map(|piece| piece.2).collect();
        gguf.set("tokenizer.ggml.scores", Meta::F32s(scores));
        gguf.set("tokenizer.ggml.model", Meta::Text("llama".into()));
        // As converters write it for every such file.
        gguf.set("tokenizer.ggml.pre", Meta::Text("default".into()));
        gguf.set("tokenizer.ggml.bos_token_id", Meta::U32(1));
        gguf.set("tokenizer.ggml.eos_token_id", Meta::U32(2));
        gguf.set("tokenizer.ggml.unknown_token_id", Meta::U32(0));
        gguf.metadata
            .retain(|(key, _)| key != "tokenizer.ggml.merges");
        gguf
    }

    pub(crate) fn add(&mut self, text: &str, kind: i32, score: f32) -> u32 {
        self.pieces.push((text.to_owned(), kind, score));
        self.pieces.len() as u32 - 1
    }

    /// The recorded ids of a text.
    pub(crate) fn ids(&self, text: &str, prefix: bool) -> Vec<u32> {
        let mut cases = self.cases.iter();
        let case = cases.find(|case| case.text == text && case.prefix == prefix);
        case.expect("recorded").ids.clone()
    }
}

pub(crate) fn encoded(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text, false).expect("encodes")
}

pub(crate) fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut stream = tokenizer.stream();
    let mut text = String::new();
    for &id in ids {
        text.extend(stream.push(id).expect("decodes"));
    }
    text.extend(stream.flush());
    text
}
