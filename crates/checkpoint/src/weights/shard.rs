//! One mapped safetensors file whose header has passed every check.
//!
//! Ranges are absolute in the file and inside it, so [`Shard::bytes`] is a plain slice.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::{header, layout};
use crate::{CheckpointError, SafeTensorsError, files};

/// One tensor of a shard.
#[derive(Debug)]
pub(crate) struct ShardTensor {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    /// Slowest dimension first.
    pub(crate) shape: Vec<usize>,
    /// Range of the tensor's bytes in the file.
    pub(crate) range: Range<usize>,
}

/// A safetensors file, mapped.
pub(crate) struct Shard {
    map: Mmap,
    pub(crate) tensors: Vec<ShardTensor>,
}

impl Shard {
    /// Maps the file and checks its header.
    pub(crate) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let map = files::map(path)?;
        let tensors = parse(&map).map_err(CheckpointError::safetensors(path))?;
        Ok(Self { map, tensors })
    }

    /// The bytes of a range taken from [`ShardTensor::range`].
    pub(crate) fn bytes(&self, range: &Range<usize>) -> &[u8] {
        self.map.get(range.clone()).unwrap_or_default()
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard")
            .field("bytes", &self.map.len())
            .field("tensors", &self.tensors.len())
            .finish()
    }
}

/// Parses and checks a whole file: our checks first, whose errors say more, then those of the `safetensors` crate.
fn parse(bytes: &[u8]) -> Result<Vec<ShardTensor>, SafeTensorsError> {
    let (mut declared, data) = header::read(bytes)?;
    layout::check(&mut declared, (bytes.len() - data) as u64)?;
    SafeTensors::read_metadata(bytes).map_err(SafeTensorsError::Refused)?;
    // Every offset is below the file's length and every dimension of a non-empty tensor below its byte count.
    let tensors = declared.into_iter().map(|tensor| ShardTensor {
        name: tensor.name,
        dtype: tensor.dtype,
        shape: tensor
            .shape
            .iter()
            .map(|&dim| usize::try_from(dim).unwrap_or(usize::MAX))
            .collect(),
        range: data + tensor.begin as usize..data + tensor.end as usize,
    });
    Ok(tensors.collect())
}
