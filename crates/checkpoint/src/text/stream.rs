//! Text from tokens as they come, never cutting a character in two.
//!
//! A byte-level token may end inside a character; its text then ends in U+FFFD, and that end is held back until later tokens
//! complete it. Each step decodes a short window: the tokens since the last clean cut, and the ones before it, since some
//! decoders treat the first token of a text apart. The concatenation of all pieces equals decoding all ids at once, special
//! tokens left out.

use std::fmt;
use std::sync::Arc;

use super::tokenizer::Inner;
use crate::TextError;

const REPLACEMENT: char = '\u{fffd}';
/// Tokens held back at most; beyond it the output is no text and goes out as it is.
const MAX_WINDOW: usize = 128;

/// Incremental decoding of one text. Special tokens are left out.
pub struct TextStream {
    tokenizer: Arc<Inner>,
    /// Tokens decoded together; the first `settled` of them have gone out in full.
    window: Vec<u32>,
    settled: usize,
    /// Bytes of the window's text that have gone out.
    emitted: usize,
}

impl TextStream {
    pub(super) fn new(tokenizer: Arc<Inner>) -> Self {
        Self {
            tokenizer,
            window: Vec::new(),
            settled: 0,
            emitted: 0,
        }
    }

    /// Adds a token and returns the text that is now certain, if any.
    ///
    /// # Errors
    /// [`TextError::Decode`] with the library's answer; the token then counts as given.
    pub fn push(&mut self, id: u32) -> Result<Option<String>, TextError> {
        if self.tokenizer.is_special(id) {
            return Ok(None);
        }
        self.window.push(id);
        let text = self.tokenizer.decode(&self.window, true)?;
        let certain = if self.window.len() > MAX_WINDOW {
            text.len()
        } else {
            text.trim_end_matches(REPLACEMENT).len()
        };
        let piece = self.emit(&text, certain);
        if piece.is_some() && certain == text.len() {
            self.window.drain(..self.settled);
            self.settled = self.window.len();
            self.emitted = self.tokenizer.decode(&self.window, true)?.len();
        }
        Ok(piece)
    }

    /// Ends the text and returns what was held back, an unfinished character as U+FFFD. The stream is then as new.
    pub fn flush(&mut self) -> Option<String> {
        let text = self
            .tokenizer
            .decode(&self.window, true)
            .unwrap_or_default();
        let piece = self.emit(&text, text.len());
        self.window.clear();
        self.settled = 0;
        self.emitted = 0;
        piece
    }

    fn emit(&mut self, text: &str, certain: usize) -> Option<String> {
        let piece = text
            .get(self.emitted..certain)
            .filter(|piece| !piece.is_empty())?
            .to_owned();
        self.emitted = certain;
        Some(piece)
    }
}

impl fmt::Debug for TextStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextStream")
            .field("window", &self.window)
            .field("emitted", &self.emitted)
            .finish_non_exhaustive()
    }
}
