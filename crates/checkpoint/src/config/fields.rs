//! Typed access to the fields of a JSON object.
//!
//! A null counts as absent, as in the libraries that write these files. A value of the wrong type is an error that shows it.

use serde_json::{Map, Value};

use crate::ConfigError;

/// A JSON object together with the name of its file.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    pub(crate) file: &'static str,
    map: &'a Map<String, Value>,
}

#[cfg(test)]
thread_local! {
    /// Names of fields that were looked up.
    pub(crate) static READ: std::cell::RefCell<std::collections::BTreeSet<String>> = const { std::cell::RefCell::new(std::collections::BTreeSet::new()) };
}

/// A JSON value as text, cut at 60 characters.
pub(crate) fn describe(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

impl<'a> Fields<'a> {
    /// Views a JSON value that must be an object.
    pub(crate) fn new(file: &'static str, value: &'a Value) -> Result<Self, ConfigError> {
        match value {
            Value::Object(map) => Ok(Self { file, map }),
            other => Err(ConfigError::Syntax {
                file,
                reason: format!("its top is {}", describe(other)),
            }),
        }
    }

    /// Every field that is not null.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let fields = self.map.iter().filter(|(_, value)| !value.is_null());
        fields.map(|(field, value)| (field.as_str(), value))
    }

    /// The value of a field, unless it is absent or null.
    pub(crate) fn get(&self, field: &str) -> Option<&'a Value> {
        #[cfg(test)]
        READ.with_borrow_mut(|read| read.insert(field.to_owned()));
        self.map.get(field).filter(|value| !value.is_null())
    }

    /// True if the field is written as null, rather than left out.
    pub(crate) fn is_null(&self, field: &str) -> bool {
        #[cfg(test)]
        READ.with_borrow_mut(|read| read.insert(field.to_owned()));
        self.map.get(field).is_some_and(Value::is_null)
    }

    /// True if any field holds an object.
    pub(crate) fn holds_objects(&self) -> bool {
        self.map.values().any(Value::is_object)
    }

    /// The error for a field of the wrong type.
    pub(crate) fn wrong(&self, field: &str, got: &Value, expected: &'static str) -> ConfigError {
        ConfigError::Type {
            file: self.file,
            field: field.to_owned(),
            got: describe(got),
            expected,
        }
    }

    /// A nested object.
    pub(crate) fn object(&self, field: &str) -> Result<Option<Fields<'a>>, ConfigError> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Fields {
                file: self.file,
                map,
            })),
            Some(other) => Err(self.wrong(field, other, "an object or null")),
        }
    }

    /// A non-negative whole number.
    pub(crate) fn size(&self, field: &str) -> Result<Option<u64>, ConfigError> {
        self.get(field)
            .map(|value| {
                value
                    .as_u64()
                    .ok_or_else(|| self.wrong(field, value, "a whole number, not negative"))
            })
            .transpose()
    }

    /// A finite number.
    pub(crate) fn number(&self, field: &str) -> Result<Option<f64>, ConfigError> {
        self.get(field)
            .map(|value| {
                value
                    .as_f64()
                    .filter(|number| number.is_finite())
                    .ok_or_else(|| self.wrong(field, value, "a finite number"))
            })
            .transpose()
    }

    /// A boolean.
    pub(crate) fn flag(&self, field: &str) -> Result<Option<bool>, ConfigError> {
        self.get(field)
            .map(|value| {
                value
                    .as_bool()
                    .ok_or_else(|| self.wrong(field, value, "true or false"))
            })
            .transpose()
    }

    /// A string.
    pub(crate) fn text(&self, field: &str) -> Result<Option<&'a str>, ConfigError> {
        self.get(field)
            .map(|value| {
                value
                    .as_str()
                    .ok_or_else(|| self.wrong(field, value, "a string"))
            })
            .transpose()
    }

    /// A token id; one below zero says that there is none.
    pub(crate) fn id(&self, field: &str) -> Result<Option<u32>, ConfigError> {
        self.get(field)
            .filter(|value| !below_zero(value))
            .map(|value| self.parse_id(field, value))
            .transpose()
    }

    /// A token id or a list of them, those below zero left out; empty when absent.
    pub(crate) fn ids(&self, field: &str) -> Result<Vec<u32>, ConfigError> {
        match self.get(field) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => list
                .iter()
                .filter(|value| !below_zero(value))
                .map(|value| self.parse_id(field, value))
                .collect(),
            Some(value) if below_zero(value) => Ok(Vec::new()),
            Some(value) => Ok(vec![self.parse_id(field, value)?]),
        }
    }

    /// The token id that a field holds, or one of its list.
    pub(crate) fn parse_id(&self, field: &str, value: &Value) -> Result<u32, ConfigError> {
        value
            .as_u64()
            .and_then(|id| u32::try_from(id).ok())
            .ok_or_else(|| self.wrong(field, value, "a token id, or a list of token ids"))
    }
}

fn below_zero(id: &Value) -> bool {
    id.as_i64().is_some_and(|id| id < 0)
}
