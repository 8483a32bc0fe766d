//! tokenizer.json, wrapped.
//!
//! Truncation and padding that a file may carry are switched off: nothing is cut without a word. Special tokens written in the
//! text are recognised as such, as the library does by default; escape untrusted text before it reaches a chat template.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use super::TextStream;
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
}

impl Tokenizer {
    /// Parses the text of a tokenizer.json.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] with the library's answer.
    pub fn from_json(text: &str) -> Result<Self, TextError> {
        let refuse = |reason: tokenizers::Error| TextError::Tokenizer {
            reason: reason.to_string(),
        };
        let mut library = tokenizers::Tokenizer::from_bytes(text).map_err(refuse)?;
        library.with_padding(None);
        library.with_truncation(None).map_err(refuse)?;
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
        Ok(Self {
            inner: Arc::new(Inner {
                library,
                special,
                vocab_size,
            }),
        })
    }

    /// Token ids of a text. `add_special` adds what the tokenizer's post-processor adds, such as a beginning-of-sequence token;
    /// pass false for the output of a chat template, which holds its own.
    ///
    /// # Errors
    /// [`TextError::Encode`] with the library's answer.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TextError> {
        let encoding = self
            .inner
            .library
            .encode_fast(text, add_special)
            .map_err(|reason| TextError::Encode {
                bytes: text.len(),
                reason: reason.to_string(),
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

    /// Begins incremental decoding.
    #[must_use]
    pub fn stream(&self) -> TextStream {
        TextStream::new(Arc::clone(&self.inner))
    }
}

impl Inner {
    pub(super) fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TextError> {
        self.library
            .decode(ids, skip_special)
            .map_err(|reason| TextError::Decode {
                tokens: ids.len(),
                reason: reason.to_string(),
            })
    }

    pub(super) fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .finish_non_exhaustive()
    }
}
