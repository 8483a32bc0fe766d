//! The tensor table of a GGUF file.
//!
//! Dims are fastest first, the reverse of a shape. Offsets count from the data section, whose beginning is aligned. Checked: 1
//! to 4 dims above zero, products inside 64 bits, rows of whole blocks, aligned offsets, inside the file, no overlap. A tensor of
//! an unknown format is taken to reach to the next one.

use std::collections::HashSet;

use super::cursor::Cursor;
use super::kind::{Format, Kind};
use crate::GgufError;

const MAX_NAME: u64 = 256;
const MAX_DIMS: u32 = 4;

/// One tensor of the table.
#[derive(Debug)]
pub(crate) struct TensorInfo {
    pub(crate) name: String,
    pub(crate) format: Format,
    /// Fastest dimension first.
    pub(crate) dims: Vec<u64>,
    /// Offset in bytes from the beginning of the data section.
    pub(super) offset: u64,
    pub(crate) bytes: u64,
}

impl TensorInfo {
    /// Dimensions slowest first, as safetensors has them.
    pub(crate) fn shape(&self) -> Vec<usize> {
        self.dims
            .iter()
            .rev()
            .map(|&dim| usize::try_from(dim).unwrap_or(usize::MAX))
            .collect()
    }

    /// The format as one that can be read.
    pub(super) fn kind(&self) -> Result<Kind, GgufError> {
        self.format.kind().ok_or_else(|| GgufError::TensorType {
            name: self.name.clone(),
            got: self.format.numbered(),
        })
    }
}

/// Reads `count` entries.
pub(super) fn read(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<TensorInfo>, GgufError> {
    let mut seen = HashSet::new();
    let mut tensors = Vec::new();
    for _ in 0..count {
        let tensor = entry(cursor)?;
        if !seen.insert(tensor.name.clone()) {
            return Err(GgufError::Duplicate {
                what: "tensor",
                name: tensor.name,
            });
        }
        tensors.push(tensor);
    }
    Ok(tensors)
}

fn entry(cursor: &mut Cursor<'_>) -> Result<TensorInfo, GgufError> {
    let name = cursor.string("a tensor name", Some(MAX_NAME))?.to_owned();
    let dim_count = cursor.u32("a tensor's dim count")?;
    if dim_count > MAX_DIMS {
        return Err(GgufError::Limit {
            what: "a tensor's dim count",
            got: dim_count.into(),
            limit: MAX_DIMS.into(),
        });
    }
    let dims = (0..dim_count)
        .map(|_| cursor.u64("a tensor's dims"))
        .collect::<Result<Vec<_>, _>>()?;
    let number = cursor.u32("a tensor's type")?;
    let offset = cursor.u64("a tensor's offset")?;
    let format = Format::new(number);
    match size(format, &dims) {
        Ok(bytes) => Ok(TensorInfo {
            name,
            format,
            dims,
            offset,
            bytes,
        }),
        Err(rule) => Err(GgufError::TensorDims {
            name,
            got: dims,
            rule,
        }),
    }
}

/// Bytes of a tensor, 0 in an unknown format, or the rule that its dims break.
fn size(format: Format, dims: &[u64]) -> Result<u64, &'static str> {
    let row = *dims.first().ok_or("a tensor has 1 to 4 dims")?;
    if dims.contains(&0) {
        return Err("every dim is above zero");
    }
    let (block, bytes) = format.block().unwrap_or((1, 0));
    let (block, bytes) = (block as u64, bytes as u64);
    if row % block != 0 {
        return Err("the first dim is a multiple of its format's block");
    }
    let elements = dims
        .iter()
        .try_fold(1u64, |product, &dim| product.checked_mul(dim));
    elements
        .and_then(|elements| (elements / block).checked_mul(bytes))
        .ok_or("the product of the dims fits in 64 bits")
}

/// Refuses bytes between tensors that belong to none, but for the padding of the one before: a tensor that is smaller than what was
/// written for it has another type than its table says. Places are checked already.
pub(super) fn check_whole(
    tensors: &[TensorInfo],
    alignment: u64,
    available: u64,
) -> Result<(), GgufError> {
    let mut order: Vec<&TensorInfo> = tensors.iter().collect();
    order.sort_by_key(|tensor| tensor.offset);
    for (at, tensor) in order.iter().enumerate() {
        let end = tensor.offset + tensor.bytes;
        let next = order.get(at + 1).map_or(available, |next| next.offset);
        let unread = next.saturating_sub(end);
        if unread >= alignment {
            return Err(GgufError::TensorOffset {
                name: tensor.name.clone(),
                offset: tensor.offset,
                bytes: tensor.bytes,
                rule: format!(
                    "{unread} bytes after it belong to no tensor, where at most {} of padding may stand: \
                     its type or its dims are not those it was written with",
                    alignment - 1
                ),
            });
        }
    }
    Ok(())
}

/// Checks every tensor's place in a data section of `available` bytes, and gives those of unknown size what lies before the next.
pub(super) fn check_places(
    tensors: &mut [TensorInfo],
    alignment: u64,
    available: u64,
) -> Result<(), GgufError> {
    let fault = |tensor: &TensorInfo, rule: String| GgufError::TensorOffset {
        name: tensor.name.clone(),
        offset: tensor.offset,
        bytes: tensor.bytes,
        rule,
    };
    let mut order: Vec<&mut TensorInfo> = tensors.iter_mut().collect();
    order.sort_by_key(|tensor| (tensor.offset, tensor.bytes));
    for at in 0..order.len() {
        let next = order.get(at + 1).map_or(available, |next| next.offset);
        let tensor = &mut *order[at];
        if tensor.format.block().is_none() {
            tensor.bytes = next.saturating_sub(tensor.offset);
        }
    }
    let mut previous: Option<&TensorInfo> = None;
    for tensor in order.iter().map(|tensor| &**tensor) {
        if tensor.offset % alignment != 0 {
            return Err(fault(
                tensor,
                format!("offsets are multiples of {alignment}"),
            ));
        }
        if tensor
            .offset
            .checked_add(tensor.bytes)
            .is_none_or(|end| end > available)
        {
            return Err(fault(
                tensor,
                format!("it ends beyond the {available} bytes there are, fetch the file again"),
            ));
        }
        if let Some(other) = previous
            && tensor.offset < other.offset + other.bytes
        {
            return Err(fault(tensor, format!("it begins inside {}", other.name)));
        }
        previous = Some(tensor);
    }
    Ok(())
}
