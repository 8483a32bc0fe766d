//! The demo's text, question and expected answer, compiled in from `demo/`.
//!
//! The prompt is the first `tokens` tokens of the text, a blank line and the question, as one user
//! message of the model's chat template: the question lies at the end, the answer far before it.

use anyhow::{Context, Result};
use serde::Deserialize;
use sparse_accelerate_checkpoint::ModelDir;

use crate::{exit::usage, prompt::chat_ids};

const SPEC: &str = include_str!("../../../demo/demo.json");
/// The demo's text.
pub(crate) const TEXT: &str = include_str!("../../../demo/jargon.txt");

/// The question and the answer that is expected.
#[derive(Debug, Deserialize)]
pub(crate) struct Spec {
    /// Tokens of text the question was chosen for.
    pub(crate) tokens: usize,
    /// The question, asked after the text.
    pub(crate) question: String,
    /// Texts of which the answer should hold one, whatever the case.
    pub(crate) expect: Vec<String>,
}

impl Spec {
    /// The one compiled in.
    pub(crate) fn built_in() -> Result<Self> {
        serde_json::from_str(SPEC).context("demo.json, compiled in, is malformed")
    }

    /// Tokens of the prompt with `tokens` tokens of text.
    pub(crate) fn prompt(&self, dir: &ModelDir, tokens: usize) -> Result<Vec<u32>> {
        let tokenizer = dir.tokenizer();
        let mut ids = tokenizer.encode(TEXT, false)?;
        if ids.len() < tokens {
            return Err(usage(format!(
                "--tokens {tokens}: the demo text has {} tokens with this model's tokenizer; ask \
                 for at most that many",
                ids.len()
            )));
        }
        ids.truncate(tokens);
        let text = tokenizer.decode(&ids, false)?;
        chat_ids(
            dir,
            None,
            &format!("{}\n\n{}", text.trim_end(), self.question),
        )
    }

    /// Tells whether an answer holds an expected text.
    pub(crate) fn found_in(&self, answer: &str) -> bool {
        let answer = answer.to_lowercase();
        self.expect
            .iter()
            .any(|e| answer.contains(&e.to_lowercase()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_demo_can_be_asked() {
        let spec = Spec::built_in().expect("demo.json");
        assert!(spec.tokens > 0);
        assert!(spec.expect.iter().all(|e| TEXT.contains(e.as_str())));
        assert!(!spec.found_in("I do not know") && !spec.question.is_empty());
    }
}
