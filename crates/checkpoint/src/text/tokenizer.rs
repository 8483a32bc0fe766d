//! tokenizer.json, wrapped.
//!
//! Truncation and padding that a file may carry are switched off: nothing is cut without a word. Special tokens written in the
//! text are recognised as such, as the library does by default; escape untrusted text before it reaches a chat template.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use tokenizers::{AddedVocabulary, DecoderWrapper, Model as _};

use super::{TextStream, border};
use crate::TextError;

/// Turns text into token ids and back.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) library: tokenizers::Tokenizer,
    special: HashSet<u32>,
    vocab_size: usize,
    /// Tokens such as `<0x0A>` stand for bytes, and runs of them are decoded together.
    byte_tokens: bool,
    /// Every token stands for bytes, which are decoded together.
    byte_level: bool,
}

impl Tokenizer {
    /// Parses the text of a tokenizer.json.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] with the library's answer.
    pub fn from_json(text: &str) -> Result<Self, TextError> {
        let parsed = border::library(|| {
            let mut library = tokenizers::Tokenizer::from_bytes(text)?;
            library.with_padding(None);
            library.with_truncation(None)?;
            Ok(library)
        });
        let library = parsed.map_err(|reason| TextError::Tokenizer { reason })?;
        let special = library
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special)
            .map(|(id, _)| id)
            .collect();
        let vocab_size = library
            .get_vocab(true)
            .into_values()
            .max()
            .map_or(0, |id| id as usize + 1);
        if vocab_size == 0 {
            return Err(TextError::Tokenizer {
                reason: "its vocabulary is empty".to_owned(),
            });
        }
        let decoders = library.get_decoder().map(flat).unwrap_or_default();
        let byte_tokens = decoders
            .iter()
            .any(|decoder| matches!(decoder, DecoderWrapper::ByteFallback(_)));
        let byte_level = decoders
            .iter()
            .any(|decoder| matches!(decoder, DecoderWrapper::ByteLevel(_)));
        Ok(Self {
            inner: Arc::new(Inner {
                library,
                special,
                vocab_size,
                byte_tokens,
                byte_level,
            }),
        })
    }

    /// Token ids of a text. `add_special` adds what the tokenizer's post-processor adds, such as a beginning-of-sequence token;
    /// pass false for the output of a chat template, which holds its own.
    ///
    /// # Errors
    /// [`TextError::Encode`] with the library's answer.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TextError> {
        let encoding = border::library(|| self.inner.library.encode_fast(text, add_special));
        let encoding = encoding.map_err(|reason| TextError::Encode {
            bytes: text.len(),
            reason,
        })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of token ids. Unknown ids give nothing; bytes that are no UTF-8 give U+FFFD.
    ///
    /// # Errors
    /// [`TextError::Decode`] with the library's answer.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TextError> {
        self.inner.decode(ids, skip_special)
    }

    /// One more than the largest token id, added tokens included.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.inner.vocab_size
    }

    /// The id of a token as the vocabulary spells it.
    #[must_use]
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.library.token_to_id(token)
    }

    /// The token of an id as the vocabulary spells it.
    #[must_use]
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.library.id_to_token(id)
    }

    /// Returns true if the id is a special token, which text output leaves out.
    #[must_use]
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.is_special(id)
    }

    /// The longest added token, special or not, that a text begins with.
    #[must_use]
    pub fn added_token_at_start(&self, text: &str) -> Option<u32> {
        let added: &AddedVocabulary = self.inner.library.get_added_vocabulary();
        added
            .get_vocab()
            .iter()
            .filter(|(token, _)| !token.is_empty() && text.starts_with(token.as_str()))
            .max_by_key(|(token, _)| token.len())
            .map(|(_, id)| *id)
    }

    /// Begins incremental decoding.
    #[must_use]
    pub fn stream(&self) -> TextStream {
        TextStream::new(Arc::clone(&self.inner))
    }
}

impl Inner {
    pub(super) fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TextError> {
        border::library(|| self.library.decode(ids, skip_special)).map_err(|reason| {
            TextError::Decode {
                tokens: ids.len(),
                reason,
            }
        })
    }

    pub(super) fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// The token of an id as the decoder gets it; ids without one give no text.
    pub(super) fn token(&self, id: u32) -> Option<String> {
        let added = self.library.get_added_vocabulary().simple_id_to_token(id);
        added.or_else(|| self.library.get_model().id_to_token(id))
    }

    /// The byte that a token stands for, by the decoder's own reading of `<0xFF>`.
    pub(super) fn byte_of(&self, token: &str) -> Option<u8> {
        let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
        let byte = self.byte_tokens && digits.len() == 2;
        byte.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
    }

    /// Returns true if a character may be spread over several tokens of any kind.
    pub(super) fn joins_bytes(&self) -> bool {
        self.byte_level
    }
}

/// The decoders that run one after another.
fn flat(decoder: &DecoderWrapper) -> Vec<&DecoderWrapper> {
    match decoder {
        DecoderWrapper::Sequence(sequence) => {
            sequence.get_decoders().iter().flat_map(flat).collect()
        }
        single => vec![single],
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .finish_non_exhaustive()
    }
}
