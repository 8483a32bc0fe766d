//! Values of GGUF metadata.
//!
//! Integers of all widths become one variant, and so do floats: nothing here depends on the width a converter chose. Arrays
//! hold scalars or strings; arrays of arrays are refused.

use super::cursor::Cursor;
use crate::GgufError;

/// Most entries of one array; vocabularies and merges reach some hundred thousand.
const MAX_ARRAY: u64 = 1 << 22;
/// Most entries of all arrays together. An entry takes more memory than room in the file.
const MAX_ENTRIES: u64 = 1 << 23;
const ARRAY: u32 = 9;

/// One metadata value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Integer(i128),
    Float(f64),
    Bool(bool),
    Text(String),
    Array(Vec<Value>),
}

impl Value {
    /// Reads a value of the type numbered `kind`, after `entries` of other arrays.
    pub(super) fn read(
        cursor: &mut Cursor<'_>,
        key: &str,
        kind: u32,
        entries: &mut u64,
    ) -> Result<Self, GgufError> {
        if kind != ARRAY {
            return Self::scalar(cursor, key, kind);
        }
        let item = cursor.u32("an array's type")?;
        if item == ARRAY {
            return Err(GgufError::ValueType {
                key: key.to_owned(),
                got: "array of arrays".to_owned(),
                expected: "an array of scalars or strings",
            });
        }
        let count = cursor.count("an array's length", MAX_ARRAY)?;
        *entries = entries.saturating_add(count as u64);
        if *entries > MAX_ENTRIES {
            return Err(GgufError::Limit {
                what: "the length of all arrays",
                got: *entries,
                limit: MAX_ENTRIES,
            });
        }
        // Every entry takes a byte at least, so a false length cannot reserve more than the file's own size.
        let mut items = Vec::with_capacity(count.min(cursor.remaining()));
        for _ in 0..count {
            items.push(Self::scalar(cursor, key, item)?);
        }
        Ok(Self::Array(items))
    }

    fn scalar(cursor: &mut Cursor<'_>, key: &str, kind: u32) -> Result<Self, GgufError> {
        const WHAT: &str = "a metadata value";
        Ok(match kind {
            0 => Self::Integer(u8::from_le_bytes(cursor.array(WHAT)?).into()),
            1 => Self::Integer(i8::from_le_bytes(cursor.array(WHAT)?).into()),
            2 => Self::Integer(u16::from_le_bytes(cursor.array(WHAT)?).into()),
            3 => Self::Integer(i16::from_le_bytes(cursor.array(WHAT)?).into()),
            4 => Self::Integer(cursor.u32(WHAT)?.into()),
            5 => Self::Integer(i32::from_le_bytes(cursor.array(WHAT)?).into()),
            6 => Self::Float(f32::from_le_bytes(cursor.array(WHAT)?).into()),
            7 => match u8::from_le_bytes(cursor.array(WHAT)?) {
                0 => Self::Bool(false),
                1 => Self::Bool(true),
                other => {
                    return Err(GgufError::ValueType {
                        key: key.to_owned(),
                        got: format!("bool with the byte {other}"),
                        expected: "0 or 1",
                    });
                }
            },
            8 => Self::Text(cursor.string(WHAT, None)?.to_owned()),
            10 => Self::Integer(cursor.u64(WHAT)?.into()),
            11 => Self::Integer(i64::from_le_bytes(cursor.array(WHAT)?).into()),
            12 => Self::Float(f64::from_le_bytes(cursor.array(WHAT)?)),
            other => {
                return Err(GgufError::ValueType {
                    key: key.to_owned(),
                    got: other.to_string(),
                    expected: "a value type in 0..=12",
                });
            }
        })
    }

    /// Name of the value's type, for error messages.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Integer(_) => "integer",
            Self::Float(_) => "float",
            Self::Bool(_) => "bool",
            Self::Text(_) => "string",
            Self::Array(_) => "array",
        }
    }

    /// The value as JSON for display; arrays above 16 entries by their length only.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Integer(n) => match (u64::try_from(*n), i64::try_from(*n)) {
                (Ok(n), _) => n.into(),
                (_, Ok(n)) => n.into(),
                _ => n.to_string().into(),
            },
            Self::Float(x) => (*x).into(),
            Self::Bool(b) => (*b).into(),
            Self::Text(text) => text.as_str().into(),
            Self::Array(items) if items.len() > 16 => {
                let name = items.first().map_or("entries", Self::type_name);
                format!("[{} entries: {name}]", items.len()).into()
            }
            Self::Array(items) => items.iter().map(Self::to_json).collect(),
        }
    }
}
