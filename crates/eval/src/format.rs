//! The prompt format: a question in the model's chat template, or as it is.
//!
//! With a chat template the question is one user message, and the answer's beginning stands where the
//! assistant's turn begins, as RULER does it; without one that works, or raw, it follows the question. The
//! date that a template may ask for is fixed, so that a prompt is the same on any day.

use sparse_accelerate_checkpoint::{ChatDate, ChatMessage, ModelDir};

use crate::error::EvalError;

/// A question, the beginning of its answer, and what the answer should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) text: String,
    /// Begins with a space.
    pub(crate) prefix: String,
    pub(crate) expected: Vec<String>,
}

/// How prompts are written for a model.
#[derive(Debug, Clone, Copy)]
pub struct Format<'a> {
    dir: &'a ModelDir,
    raw: bool,
}

impl<'a> Format<'a> {
    /// The model's chat template where it has one that works, unless `raw`; [`ModelDir::notes`] names a broken one.
    pub fn new(dir: &'a ModelDir, raw: bool) -> Self {
        Self {
            dir,
            raw: raw || dir.chat_template().is_err(),
        }
    }

    /// Tells whether no template is used.
    pub fn is_raw(&self) -> bool {
        self.raw
    }

    /// Tokens of one user message.
    ///
    /// # Errors
    /// A text that the template or the tokenizer refuses.
    pub fn message(&self, text: &str) -> Result<Vec<u32>, EvalError> {
        self.tokens(text, "")
    }

    pub(crate) fn question(&self, question: &Question) -> Result<Vec<u32>, EvalError> {
        self.tokens(&question.text, &question.prefix)
    }

    fn tokens(&self, text: &str, prefix: &str) -> Result<Vec<u32>, EvalError> {
        let tokenizer = self.dir.tokenizer();
        if self.raw {
            return Ok(tokenizer.encode(&format!("{text}{prefix}"), true)?);
        }
        let template = self.dir.chat_template()?;
        let rendered = template.render(&[ChatMessage::new("user", text)], true, ChatDate::Fixed)?;
        Ok(tokenizer.encode(&format!("{rendered}{}", prefix.trim_start()), false)?)
    }
}
