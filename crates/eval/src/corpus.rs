//! The text that prompts are made of.
//!
//! Its tokens must give it back, byte for byte: lengths are counted in tokens and perplexity in bytes,
//! and both would be wrong for a text that the tokenizer rewrites. Haystacks take it as words with
//! single spaces between them, as RULER does; perplexity and fidelity take it as it is.

use std::{collections::BTreeSet, path::Path};

use sparse_accelerate_checkpoint::Tokenizer;

use crate::error::EvalError;

/// Characters shown of a difference.
const SHOWN: usize = 12;

/// A text, its tokens and its words.
#[derive(Debug)]
pub struct Corpus {
    name: String,
    sha256: String,
    ids: Vec<u32>,
    pub(crate) words: Vec<String>,
    /// Words that begin a sentence, ascending; 0 is one.
    pub(crate) sentences: Vec<usize>,
}

impl Corpus {
    /// Tokenizes a text; `name` stands for it in errors.
    ///
    /// # Errors
    /// A text of nothing, and tokens that do not give it back.
    pub fn new(
        name: impl Into<String>,
        text: &str,
        tokenizer: &Tokenizer,
    ) -> Result<Self, EvalError> {
        let name = name.into();
        let ids = round_trip(&name, text, tokenizer)?;
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        if words.is_empty() {
            return Err(EvalError::TextTooShort {
                name,
                have: ids.len(),
                needed: 1,
                length: 1,
            });
        }
        let sentences = (0..words.len())
            .filter(|at| *at == 0 || ends_sentence(&words[at - 1]))
            .collect();
        Ok(Self {
            name,
            sha256: crate::hash::text_hash(text),
            ids,
            words,
            sentences,
        })
    }

    /// [`Corpus::new`] of a UTF-8 file.
    ///
    /// # Errors
    /// As [`Corpus::new`], and a file that cannot be read.
    pub fn read(path: &Path, tokenizer: &Tokenizer) -> Result<Self, EvalError> {
        let text = std::fs::read_to_string(path).map_err(|source| EvalError::Read {
            path: path.into(),
            source,
        })?;
        Self::new(path.display().to_string(), &text, tokenizer)
    }

    /// Name of the text in errors.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 of the text, hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Its tokens.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Refuses a text of fewer than `needed` tokens for a prompt of `length`.
    pub(crate) fn require(&self, needed: usize, length: usize) -> Result<(), EvalError> {
        if self.ids.len() >= needed {
            return Ok(());
        }
        Err(EvalError::TextTooShort {
            name: self.name.clone(),
            have: self.ids.len(),
            needed,
            length,
        })
    }

    /// Different words of 3 to 12 ASCII letters, in lower case and in order.
    pub(crate) fn different_words(&self) -> Vec<String> {
        let plain = self.words.iter().map(|word| {
            word.trim_matches(|c: char| !c.is_ascii_alphabetic())
                .to_ascii_lowercase()
        });
        let plain = plain.filter(|word| {
            (3..=12).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_alphabetic())
        });
        plain.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// Tokens of a text, which must give it back.
pub(crate) fn round_trip(
    name: &str,
    text: &str,
    tokenizer: &Tokenizer,
) -> Result<Vec<u32>, EvalError> {
    let ids = tokenizer.encode(text, false)?;
    let back = tokenizer.decode(&ids, false)?;
    if back == text {
        return Ok(ids);
    }
    let same = text.bytes().zip(back.bytes()).take_while(|(a, b)| a == b);
    let mut byte = same.count();
    while !text.is_char_boundary(byte) || !back.is_char_boundary(byte) {
        byte -= 1;
    }
    let from = |text: &str| format!("{:?}", text[byte..].chars().take(SHOWN).collect::<String>());
    Err(EvalError::RoundTrip {
        name: name.into(),
        byte,
        text: from(text),
        back: from(&back),
    })
}

/// Tells whether the next word begins a sentence: a full stop may be inside quotes or brackets.
fn ends_sentence(word: &str) -> bool {
    word.trim_end_matches(['"', '\'', ')', ']', '”', '’'])
        .ends_with(['.', '!', '?'])
}
