//! The special tokens of a model by name, and the chat template beside them: tokenizer_config.json and special_tokens_map.json.
//!
//! Tokens are strings or objects with `content`. Older models keep them in special_tokens_map.json, which counts where
//! tokenizer_config.json does not list its added tokens, and everywhere for names that it lacks. The template is a string, a list
//! of named ones or an object of them, of which `default` is taken. What is malformed here is an error of the template, which alone
//! cannot do without.

use minijinja::Value as Variable;
use serde_json::{Map, Value};
use tokenizers::AddedToken;

use crate::TextError;
use crate::config::describe;

pub(super) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
pub(super) const TOKENS_MAP: &str = "special_tokens_map.json";
/// Names of single tokens, which are also the variables of a template.
const NAMES: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];
/// Name of the list of further special tokens.
const ADDITIONAL: &str = "additional_special_tokens";
/// Object of further special tokens with names of their own.
const EXTRA: &str = "extra_special_tokens";

/// Special tokens by the names that a template may use.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpecialTokens {
    named: Vec<(String, AddedToken)>,
    additional: Vec<AddedToken>,
}

impl SpecialTokens {
    /// The text of a token, such as `eos_token`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let token = self.named.iter().find(|(known, _)| known == name);
        token.map(|(_, token)| token.content.as_str())
    }

    /// Every token.
    pub(super) fn iter(&self) -> impl Iterator<Item = &AddedToken> {
        let named = self.named.iter().map(|(_, token)| token);
        named.chain(&self.additional)
    }

    /// The variables of a template.
    pub(super) fn variables(&self) -> Variable {
        let named = self.named.iter();
        let mut pairs: Vec<(&str, Variable)> = named
            .map(|(name, token)| (name.as_str(), Variable::from(token.content.as_str())))
            .collect();
        if !self.additional.is_empty() {
            let tokens = self.additional.iter();
            pairs.push((
                ADDITIONAL,
                tokens.map(|token| token.content.as_str()).collect(),
            ));
        }
        Variable::from_pairs(pairs)
    }

    /// Reads the tokens of a parsed file.
    pub(super) fn from_map(
        file: &'static str,
        map: &Map<String, Value>,
    ) -> Result<Self, TextError> {
        let mut tokens = Self::default();
        for name in NAMES {
            if let Some(token) = token(file, name, map.get(name))? {
                tokens.named.push((name.to_owned(), token));
            }
        }
        for list in [ADDITIONAL, EXTRA] {
            match map.get(list) {
                None | Some(Value::Null) => {}
                Some(Value::Array(items)) => {
                    for item in items {
                        tokens.additional.extend(token(file, list, Some(item))?);
                    }
                }
                Some(Value::Object(items)) => {
                    for (name, item) in items {
                        let token = token(file, list, Some(item))?;
                        tokens
                            .named
                            .extend(token.map(|token| (name.clone(), token)));
                    }
                }
                Some(other) => {
                    return Err(fault(file, list, other, "a list or an object of tokens"));
                }
            }
        }
        Ok(tokens)
    }

    /// These tokens, and those of `other` for names that are not among them.
    pub(super) fn or(mut self, other: Self) -> Self {
        for (name, token) in other.named {
            if self.get(&name).is_none() {
                self.named.push((name, token));
            }
        }
        if self.additional.is_empty() {
            self.additional = other.additional;
        }
        self
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for SpecialTokens {
    fn from_iter<T: IntoIterator<Item = (&'a str, &'a str)>>(pairs: T) -> Self {
        let named = pairs
            .into_iter()
            .map(|(name, text)| (name.to_owned(), AddedToken::from(text, true)))
            .collect();
        Self {
            named,
            additional: Vec::new(),
        }
    }
}

fn token(
    file: &'static str,
    field: &'static str,
    value: Option<&Value>,
) -> Result<Option<AddedToken>, TextError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => added_token(value, true).map(Some).ok_or_else(|| {
            let expected = "a string, or an object with the string `content`";
            fault(file, field, value, expected)
        }),
    }
}

/// A token from its text, or from an object that also says how it is matched.
pub(super) fn added_token(value: &Value, special: bool) -> Option<AddedToken> {
    let Value::Object(object) = value else {
        return Some(AddedToken::from(value.as_str()?, special));
    };
    let flag = |name: &str| object.get(name).and_then(Value::as_bool);
    let special = flag("special").unwrap_or(special);
    let content = object.get("content")?.as_str()?;
    Some(
        AddedToken::from(content, special)
            .normalized(flag("normalized").unwrap_or(!special))
            .lstrip(flag("lstrip").unwrap_or(false))
            .rstrip(flag("rstrip").unwrap_or(false))
            .single_word(flag("single_word").unwrap_or(false)),
    )
}

/// The template of a parsed tokenizer_config.json.
pub(super) fn template(value: Option<&Value>) -> Result<Option<String>, TextError> {
    const FIELD: &str = "chat_template";
    let expected = "a string, or a list of {name, template} with one named `default`";
    let (list, found) = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => return Ok(Some(text.clone())),
        Some(list @ Value::Array(items)) => {
            let named = |item: &&Value| item.get("name").and_then(Value::as_str) == Some("default");
            let found = items.iter().find(named);
            (list, found.and_then(|item| item.get("template")))
        }
        Some(list @ Value::Object(items)) => (list, items.get("default")),
        Some(other) => return Err(fault(TOKENIZER_CONFIG, FIELD, other, expected)),
    };
    let text = found.and_then(Value::as_str);
    text.map(|text| Some(text.to_owned()))
        .ok_or_else(|| fault(TOKENIZER_CONFIG, FIELD, list, expected))
}

/// An error of one field.
pub(super) fn fault(
    file: &'static str,
    field: &'static str,
    got: &Value,
    expected: &'static str,
) -> TextError {
    TextError::TokenizerConfig {
        file,
        field,
        got: describe(got),
        expected,
    }
}
