//! The header of a safetensors file, with duplicates kept so that they can be refused.
//!
//! The file is a little-endian u64 length, that many bytes of JSON, then data. The `safetensors` crate reads the JSON into a
//! map, where the last of two equal names wins without a word; this reader keeps a list.

use std::collections::{HashMap, HashSet};
use std::fmt;

use safetensors::Dtype;
use serde::Deserialize;
use serde::de::value::{Error as NameError, StrDeserializer};
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::SafeTensorsError;

const LENGTH_BYTES: usize = 8;
const MAX_HEADER: u64 = 100_000_000;

/// Header entry of one tensor. Offsets are in bytes from the end of the header.
#[derive(Debug)]
pub(super) struct Declared {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<u64>,
    pub(super) begin: u64,
    pub(super) end: u64,
}

/// Reads the header. Returns the tensors as declared and the offset of the data in the file.
pub(super) fn read(bytes: &[u8]) -> Result<(Vec<Declared>, usize), SafeTensorsError> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(SafeTensorsError::TooShort {
            got: bytes.len() as u64,
        });
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER {
        return Err(SafeTensorsError::HeaderTooLarge {
            got: length,
            limit: MAX_HEADER,
        });
    }
    let size = length as usize;
    let Some(json) = rest.get(..size) else {
        return Err(SafeTensorsError::HeaderBeyondFile {
            got: length,
            available: rest.len() as u64,
        });
    };
    let List(raw) = serde_json::from_slice(json).map_err(SafeTensorsError::HeaderJson)?;

    let mut seen = HashSet::new();
    let mut declared = Vec::with_capacity(raw.len());
    for (name, tensor) in raw {
        if !seen.insert(name.clone()) {
            return Err(SafeTensorsError::DuplicateName { name });
        }
        let Ok(dtype) = Dtype::deserialize(StrDeserializer::<NameError>::new(&tensor.dtype)) else {
            return Err(SafeTensorsError::UnknownDtype {
                name,
                got: tensor.dtype,
            });
        };
        let (begin, end) = tensor.data_offsets;
        declared.push(Declared {
            name,
            dtype,
            shape: tensor.shape,
            begin,
            end,
        });
    }
    Ok((declared, LENGTH_BYTES + size))
}

#[derive(Deserialize)]
struct Raw {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The header's object as a list in file order, `__metadata__` left out.
struct List(Vec<(String, Raw)>);

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = List;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensor name to dtype, shape and data_offsets")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<List, A::Error> {
                let mut list = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        let _: HashMap<String, String> = map.next_value()?;
                    } else {
                        list.push((name, map.next_value()?));
                    }
                }
                Ok(List(list))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
