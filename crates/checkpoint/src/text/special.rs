//! The part of tokenizer_config.json that a chat needs: the template and the tokens it may name.
//!
//! Tokens are strings or objects with `content`. The template is a string, or a list of named ones of which `default` is taken.

use serde_json::{Map, Value};

use crate::TextError;
use crate::config::describe;

/// Fields read from tokenizer_config.json.
#[derive(Debug, Default)]
pub(crate) struct TokenizerConfig {
    pub(crate) bos_token: Option<String>,
    pub(crate) eos_token: Option<String>,
    pub(crate) chat_template: Option<String>,
}

impl TokenizerConfig {
    /// Picks the fields out of the parsed file.
    pub(crate) fn from_value(value: &Value) -> Result<Self, TextError> {
        let Value::Object(map) = value else {
            return Err(fault("(top)", value, "an object"));
        };
        Ok(Self {
            bos_token: token(map, "bos_token")?,
            eos_token: token(map, "eos_token")?,
            chat_template: template(map.get("chat_template"))?,
        })
    }
}

fn token(map: &Map<String, Value>, field: &'static str) -> Result<Option<String>, TextError> {
    let value = match map.get(field) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(object)) => object.get("content").unwrap_or(&Value::Null),
        Some(other) => other,
    };
    match value {
        Value::String(text) => Ok(Some(text.clone())),
        other => Err(fault(
            field,
            other,
            "a string, or an object with the string `content`",
        )),
    }
}

fn template(value: Option<&Value>) -> Result<Option<String>, TextError> {
    let expected = "a string, or a list of {name, template} with one named `default`";
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Array(list)) => list
            .iter()
            .find(|entry| entry.get("name").and_then(Value::as_str) == Some("default"))
            .and_then(|entry| entry.get("template")?.as_str())
            .map(|text| Some(text.to_owned()))
            .ok_or_else(|| fault("chat_template", &Value::Array(list.clone()), expected)),
        Some(other) => Err(fault("chat_template", other, expected)),
    }
}

fn fault(field: &'static str, got: &Value, expected: &'static str) -> TextError {
    TextError::TokenizerConfig {
        field,
        got: describe(got),
        expected,
    }
}
