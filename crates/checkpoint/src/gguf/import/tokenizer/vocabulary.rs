//! The tokens of a GGUF file with their types, checked against each other.
//!
//! Every row of the embedding table has a token. Those of type 5 are padding that no text gives; those of type 3 and 4 are found in a
//! text before anything else is done with it.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use crate::GgufError;
use crate::gguf::metadata::{Metadata, required};

/// Purpose of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenType {
    Normal,
    /// Stands for what has no token.
    Unknown,
    /// Added and special.
    Control,
    /// Added, not special.
    UserDefined,
    /// A row of the table with no token.
    Unused,
    /// A byte of a character that has no token.
    Byte,
}

impl TokenType {
    fn of(number: i128) -> Option<Self> {
        Some(match number {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }
}

/// Tokens and types, by id.
pub(super) struct Vocabulary<'a> {
    tokens: Vec<(&'a str, TokenType)>,
}

impl<'a> Vocabulary<'a> {
    /// Reads the tokens, whose types are among `types`. No two are spelled alike.
    pub(super) fn read(metadata: &'a Metadata, types: &[TokenType]) -> Result<Self, GgufError> {
        let key = "tokenizer.ggml.tokens";
        let texts = required(key, metadata.texts(key))?;
        let key = "tokenizer.ggml.token_type";
        let numbers = required(key, metadata.integers(key))?;
        if texts.is_empty() || texts.len() != numbers.len() {
            let (tokens, types) = (texts.len(), numbers.len());
            return Err(fault(format!("{tokens} tokens and {types} token types")));
        }
        let mut seen = HashSet::new();
        let mut tokens = Vec::with_capacity(texts.len());
        for (id, (text, number)) in texts.into_iter().zip(numbers).enumerate() {
            let kind = TokenType::of(number).filter(|kind| types.contains(kind));
            let kind = kind.ok_or_else(|| {
                fault(format!(
                    "token {id} has type {number}, which such a vocabulary does not have"
                ))
            })?;
            if kind != TokenType::Unused && !seen.insert(text) {
                return Err(fault(format!("token {id} ({text:?}) stands twice")));
            }
            tokens.push((text, kind));
        }
        Ok(Self { tokens })
    }

    /// Rows of the embedding table.
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Every row with its token, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &'a str, TokenType)> {
        let tokens = self.tokens.iter().enumerate();
        tokens.map(|(id, (text, kind))| (id, *text, *kind))
    }

    pub(super) fn token(&self, id: u32) -> Option<&'a str> {
        self.tokens.get(id as usize).map(|(text, _)| *text)
    }

    /// The id under a key of the metadata.
    pub(super) fn id(&self, metadata: &Metadata, key: &str) -> Result<Option<u32>, GgufError> {
        let Some(id) = metadata.size(key)? else {
            return Ok(None);
        };
        match u32::try_from(id) {
            Ok(id) if (id as usize) < self.len() => Ok(Some(id)),
            _ => Err(fault(format!(
                "{key} is {id}, there are {} tokens",
                self.len()
            ))),
        }
    }

    /// The token for what has none, by its type.
    pub(super) fn unknown(&self) -> Result<Option<u32>, GgufError> {
        let mut all = self
            .iter()
            .filter(|(_, _, kind)| *kind == TokenType::Unknown);
        match (all.next(), all.next()) {
            (Some((first, ..)), Some((second, ..))) => Err(fault(format!(
                "tokens {first} and {second} both stand for what is unknown"
            ))),
            (first, _) => Ok(first.map(|(id, ..)| id as u32)),
        }
    }

    /// The vocabulary of tokenizer.json.
    pub(super) fn ids(&self) -> Map<String, Value> {
        let used = self
            .iter()
            .filter(|(_, _, kind)| *kind != TokenType::Unused);
        used.map(|(id, text, _)| (text.to_owned(), id.into()))
            .collect()
    }

    /// The added tokens of tokenizer.json. Blanks after those in `bare` are no part of a text. `normalized` tells which of them are looked
    /// for in a text whose spaces have been rewritten, as they are themselves.
    pub(super) fn added(&self, bare: &[&str], normalized: impl Fn(&str) -> bool) -> Vec<Value> {
        let added = self.iter().filter_map(|(id, content, kind)| {
            let special = match kind {
                TokenType::Normal | TokenType::Byte | TokenType::Unused => return None,
                TokenType::Unknown | TokenType::Control => true,
                TokenType::UserDefined => false,
            };
            Some(json!({
                "id": id, "content": content, "single_word": false, "lstrip": false,
                "rstrip": bare.contains(&content), "normalized": normalized(content), "special": special,
            }))
        });
        added.collect()
    }
}

/// A contradiction inside the vocabulary.
pub(super) fn fault(reason: String) -> GgufError {
    GgufError::Vocabulary { reason }
}
