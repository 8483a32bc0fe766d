//! The key-value section of a GGUF file, with typed access.
//!
//! A key of the wrong type is an error, never taken for absent.

use std::collections::BTreeMap;

use super::cursor::Cursor;
use super::value::Value;
use crate::GgufError;

const MAX_KEY: u64 = 65_535;

/// Metadata by key.
#[derive(Debug, Default)]
pub(crate) struct Metadata(BTreeMap<String, Value>);

impl Metadata {
    /// Reads `count` pairs.
    pub(super) fn read(cursor: &mut Cursor<'_>, count: usize) -> Result<Self, GgufError> {
        let mut map = BTreeMap::new();
        let mut entries = 0;
        for _ in 0..count {
            let key = cursor.string("a metadata key", Some(MAX_KEY))?.to_owned();
            let kind = cursor.u32("a metadata type")?;
            let value = Value::read(cursor, &key, kind, &mut entries)?;
            if map.contains_key(&key) {
                return Err(GgufError::Duplicate {
                    what: "metadata key",
                    name: key,
                });
            }
            map.insert(key, value);
        }
        Ok(Self(map))
    }

    /// One key with a text.
    pub(super) fn of(key: &str, text: &str) -> Self {
        Self([(key.to_owned(), Value::Text(text.to_owned()))].into())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.iter()
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// A whole number that is not negative.
    pub(super) fn size(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.typed(key, "a whole number, not negative", |value| match value {
            Value::Integer(n) => u64::try_from(*n).ok(),
            _ => None,
        })
    }

    pub(super) fn float(&self, key: &str) -> Result<Option<f64>, GgufError> {
        self.typed(key, "a finite float", |value| match value {
            Value::Float(x) if x.is_finite() => Some(*x),
            _ => None,
        })
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "a bool", |value| match value {
            Value::Bool(b) => Some(*b),
            _ => None,
        })
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.typed(key, "a string", |value| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<&str>>, GgufError> {
        self.list(key, "an array of strings", |value| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    pub(super) fn integers(&self, key: &str) -> Result<Option<Vec<i128>>, GgufError> {
        self.list(key, "an array of integers", |value| match value {
            Value::Integer(n) => Some(*n),
            _ => None,
        })
    }

    pub(super) fn floats(&self, key: &str) -> Result<Option<Vec<f64>>, GgufError> {
        self.list(key, "an array of finite floats", |value| match value {
            Value::Float(x) if x.is_finite() => Some(*x),
            _ => None,
        })
    }

    fn list<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        item: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>, GgufError> {
        self.typed(key, expected, |value| match value {
            Value::Array(items) => items.iter().map(&item).collect(),
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        read(value).map(Some).ok_or_else(|| GgufError::ValueType {
            key: key.to_owned(),
            got: value.type_name().to_owned(),
            expected,
        })
    }
}

/// Turns an absent key into an error.
pub(super) fn required<T>(key: &str, value: Result<Option<T>, GgufError>) -> Result<T, GgufError> {
    value?.ok_or_else(|| GgufError::MissingKey {
        key: key.to_owned(),
    })
}
