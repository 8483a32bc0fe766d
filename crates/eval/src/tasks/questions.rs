//! Questions on documents: one document answers, the others are about something else.
//!
//! RULER's `qa` (arXiv 2404.06654; `qa.py`) on a file the user gives: a line is an object with
//! `document`, `question` and `answers`. The documents of other lines are what distracts.

use std::{fs, path::Path};

use serde::Deserialize;

use super::recipe::Recipe;
use crate::{draw::Draw, error::EvalError, format::Question};

/// A question with the document that answers it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    document: String,
    question: String,
    answers: Vec<String>,
}

/// A file of questions.
#[derive(Debug)]
pub struct Questions {
    name: String,
    sha256: String,
    items: Vec<Item>,
}

impl Questions {
    /// Reads a file of JSON lines.
    ///
    /// # Errors
    /// A file that cannot be read, has no line, or has one that is no question.
    pub fn read(path: &Path) -> Result<Self, EvalError> {
        let text = fs::read_to_string(path).map_err(|source| EvalError::Read {
            path: path.into(),
            source,
        })?;
        let bad = |line: usize, reason: String| EvalError::Questions {
            path: path.into(),
            line,
            reason,
        };
        let mut items: Vec<Item> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let item: Item =
                serde_json::from_str(line).map_err(|error| bad(index + 1, error.to_string()))?;
            if item.answers.iter().all(|answer| answer.trim().is_empty()) {
                return Err(bad(index + 1, "no answer".into()));
            }
            items.push(item);
        }
        if items.is_empty() {
            return Err(bad(1, "no question".into()));
        }
        Ok(Self {
            name: path.display().to_string(),
            sha256: crate::hash::text_hash(&text),
            items,
        })
    }

    /// SHA-256 of the file, hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }
}

/// One sample.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    questions: &'a Questions,
    item: &'a Item,
    /// Documents that distract, in the order they are added.
    others: Vec<&'a str>,
    depth: f64,
}

impl<'a> Asked<'a> {
    pub(super) fn draw(questions: &'a Questions, draw: &mut Draw) -> (Self, f64) {
        let item = &questions.items[draw.below(questions.items.len())];
        let mut others: Vec<&str> = Vec::new();
        for other in &questions.items {
            let document = other.document.as_str();
            if document != item.document && !others.contains(&document) {
                others.push(document);
            }
        }
        draw.shuffle(&mut others);
        let depth = draw.unit();
        let asked = Self {
            questions,
            item,
            others,
            depth,
        };
        (asked, depth)
    }
}

impl Recipe for Asked<'_> {
    fn range(&self) -> (usize, usize) {
        (0, self.others.len())
    }

    fn rate(&self) -> f64 {
        let bytes: usize = self.others.iter().map(|text| text.len()).sum();
        (bytes as f64 / 4.0 / self.others.len().max(1) as f64).max(1.0)
    }

    fn make(&self, units: usize) -> Question {
        let mut documents = self.others[..units].to_vec();
        let at = (self.depth * (units + 1) as f64) as usize;
        documents.insert(at.min(units), &self.item.document);
        let documents = documents.iter().enumerate();
        let documents = documents.map(|(i, text)| format!("Document {}:\n{text}", i + 1));
        Question {
            text: format!(
                "Answer the question based on the given documents. Only give me the answer and do \
                 not output any other words.\n\nThe following are given documents.\n\n{}\n\nAnswer \
                 the question based on the given documents. Only give me the answer and do not \
                 output any other words.\n\nQuestion: {}",
                documents.collect::<Vec<_>>().join("\n\n"),
                self.item.question
            ),
            prefix: " Answer:".to_owned(),
            expected: self.item.answers.clone(),
        }
    }

    fn exhausted(&self, short: usize, length: usize) -> Option<EvalError> {
        Some(EvalError::TextTooShort {
            name: self.questions.name.clone(),
            have: length.saturating_sub(short),
            needed: length,
            length,
        })
    }
}
