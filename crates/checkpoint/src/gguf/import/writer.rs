//! The head of a safetensors file whose data will be streamed after it.
//!
//! Sizes are known before any data, so the header can be written first. It is padded with spaces to 8 bytes, which keeps every
//! element aligned.

use serde_json::{Map, Value, json};

use crate::WeightDtype;

const ALIGNMENT: usize = 8;

/// Length and header for tensors of one dtype that follow each other in the order given. Shapes are slowest dimension first.
pub(super) fn head<'a>(
    tensors: impl Iterator<Item = (&'a str, &'a [usize])>,
    dtype: WeightDtype,
) -> Vec<u8> {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    let mut offset = 0;
    for (name, shape) in tensors {
        let end = offset + shape.iter().product::<usize>() * dtype.size();
        let entry = json!({ "dtype": dtype.safetensors_name(), "shape": shape, "data_offsets": [offset, end] });
        header.insert(name.to_owned(), entry);
        offset = end;
    }
    let mut json = Value::Object(header).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(ALIGNMENT), b' ');
    let mut head = (json.len() as u64).to_le_bytes().to_vec();
    head.append(&mut json);
    head
}
