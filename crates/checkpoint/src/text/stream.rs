//! Text from tokens as they come: the pieces joined are what decoding all ids at once gives, special tokens left out.
//!
//! So a piece goes out only when no later token can change it. Two things can change: an unfinished character at the end, which
//! decodes to U+FFFD until its other bytes come; and, where bytes have tokens of their own (`<0x0A>`), a whole run of them, since
//! one bad byte turns every byte of its run into U+FFFD. A run is therefore held until it ends or is known to be bad.
//! [`TextStream::pending`] shows what is held. Each step decodes a short window: the tokens that are not out yet, after those just
//! before them, since some decoders treat the first token of a text apart.

use std::fmt;
use std::sync::Arc;

use super::tokenizer::Inner;
use crate::TextError;

const REPLACEMENT: char = '\u{fffd}';
/// Tokens whose text ends in U+FFFD that are decoded together at most.
const MAX_WINDOW: usize = 32;
/// Tokens that stay of a window that is too long. UTF-8 finds its place again within three bytes, and a token has one or more.
const KEPT_WINDOW: usize = 8;

/// Incremental decoding of one text. Special tokens are left out.
pub struct TextStream {
    tokenizer: Arc<Inner>,
    /// Tokens decoded together; the first `settled` of them have gone out in full.
    window: Vec<u32>,
    settled: usize,
    /// Bytes of the window's text that have gone out.
    emitted: usize,
    run: Run,
}

/// The run of byte tokens at the end of a text.
#[derive(Debug, Default)]
struct Run {
    open: bool,
    /// Bytes since its last whole character; a bad run keeps those that made it so.
    unfinished: Vec<u8>,
    bad: bool,
}

impl Run {
    fn push(&mut self, byte: u8) {
        self.open = true;
        if self.bad {
            return;
        }
        self.unfinished.push(byte);
        match std::str::from_utf8(&self.unfinished) {
            Ok(_) => self.unfinished.clear(),
            Err(error) => self.bad = error.error_len().is_some(),
        }
    }
}

impl TextStream {
    pub(super) fn new(tokenizer: Arc<Inner>) -> Self {
        Self {
            tokenizer,
            window: Vec::new(),
            settled: 0,
            emitted: 0,
            run: Run::default(),
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
        let Some(token) = self.tokenizer.token(id) else {
            return Ok(None);
        };
        self.window.push(id);
        match self.tokenizer.byte_of(&token) {
            Some(byte) => {
                let was_bad = self.run.bad;
                self.run.push(byte);
                match (was_bad, self.run.bad) {
                    (_, false) => Ok(None),
                    (false, true) => {
                        let piece = self.take_all()?;
                        let kept = self.window.len() - self.run.unfinished.len();
                        self.window.drain(..kept);
                        self.settle()?;
                        Ok(piece)
                    }
                    (true, true) => {
                        let piece = self.take_all()?;
                        // The bytes that made the run bad stay before the next one.
                        self.window.truncate(self.settled);
                        self.settle()?;
                        Ok(piece)
                    }
                }
            }
            None if self.run.open => {
                self.run = Run::default();
                let piece = self.take_all()?;
                self.keep_from(self.window.len() - 1)?;
                Ok(piece)
            }
            None => self.push_text(),
        }
    }

    /// Text that is held back, as it would be if nothing came after it.
    #[must_use]
    pub fn pending(&self) -> String {
        if self.settled == self.window.len() {
            return String::new();
        }
        let text = self.tokenizer.decode(&self.window, true);
        let text = text.unwrap_or_default();
        text.get(self.emitted..).unwrap_or_default().to_owned()
    }

    /// Ends the text and returns what was held back, an unfinished character as U+FFFD. The stream is then as new.
    pub fn flush(&mut self) -> Option<String> {
        let rest = self.pending();
        *self = Self::new(Arc::clone(&self.tokenizer));
        Some(rest).filter(|rest| !rest.is_empty())
    }

    /// The step for a token that is no byte of a run.
    fn push_text(&mut self) -> Result<Option<String>, TextError> {
        let text = self.tokenizer.decode(&self.window, true)?;
        // However many bytes an unfinished character has, it shows as one replacement.
        let held = match self.tokenizer.joins_bytes() && text.ends_with(REPLACEMENT) {
            true => REPLACEMENT.len_utf8(),
            false => 0,
        };
        let piece = self.emit(&text, text.len() - held);
        if held == 0 {
            if piece.is_some() {
                self.keep_from(self.settled)?;
            }
        } else if self.window.len() - self.settled > MAX_WINDOW {
            self.window.drain(..self.window.len() - KEPT_WINDOW);
            // Nothing of the window counts as settled: its end is still held.
            self.settled = 0;
            let text = self.tokenizer.decode(&self.window, true)?;
            self.emitted = text.len().saturating_sub(held);
        }
        Ok(piece)
    }

    /// Everything in the window that has not gone out.
    fn take_all(&mut self) -> Result<Option<String>, TextError> {
        let text = self.tokenizer.decode(&self.window, true)?;
        Ok(self.emit(&text, text.len()))
    }

    /// Forgets the tokens before `first`; the others have gone out.
    fn keep_from(&mut self, first: usize) -> Result<(), TextError> {
        self.window.drain(..first);
        self.settle()
    }

    /// Marks the whole window as gone out.
    fn settle(&mut self) -> Result<(), TextError> {
        self.settled = self.window.len();
        self.emitted = self.tokenizer.decode(&self.window, true)?.len();
        Ok(())
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
            .field("run", &self.run)
            .finish_non_exhaustive()
    }
}
