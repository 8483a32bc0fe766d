//! A GGUF file, mapped and checked as a whole.
//!
//! Layout: magic, version, two counts, metadata, tensor table, padding, data. Versions 2 and 3 differ only in what they allow
//! for byte order. Any file is described; what cannot be imported (big endian, other element formats) is refused by
//! [`GgufFile::check_importable`].

use std::fmt;
use std::path::Path;

use memmap2::Mmap;

use super::cursor::Cursor;
use super::metadata::Metadata;
use super::table::{self, TensorInfo};
use crate::{CheckpointError, GgufError, files};

const MAGIC: [u8; 4] = *b"GGUF";
const VERSIONS: std::ops::RangeInclusive<u32> = 2..=3;
const MAX_TENSORS: u64 = 1 << 16;
const MAX_PAIRS: u64 = 1 << 16;
const DEFAULT_ALIGNMENT: u64 = 32;
const ALIGNMENTS: std::ops::RangeInclusive<u64> = 8..=1 << 20;

/// A mapped GGUF file.
pub(crate) struct GgufFile {
    map: Mmap,
    pub(crate) version: u32,
    pub(crate) big_endian: bool,
    pub(crate) metadata: Metadata,
    pub(crate) tensors: Vec<TensorInfo>,
    data: usize,
    alignment: u64,
}

struct Header {
    version: u32,
    big_endian: bool,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    data: usize,
    alignment: u64,
}

impl GgufFile {
    /// Maps a file and checks its header and every tensor's place.
    pub(crate) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let map = files::map(path)?;
        let Header {
            version,
            big_endian,
            metadata,
            tensors,
            data,
            alignment,
        } = parse(&map).map_err(CheckpointError::gguf(path))?;
        Ok(Self {
            map,
            version,
            big_endian,
            metadata,
            tensors,
            data,
            alignment,
        })
    }

    /// Refuses a file whose tensors cannot all be read.
    pub(crate) fn check_importable(&self) -> Result<(), GgufError> {
        if self.big_endian {
            return Err(GgufError::BigEndian);
        }
        let mut tensors = self.tensors.iter();
        tensors.try_for_each(|tensor| tensor.kind().map(drop))?;
        let available = (self.map.len() - self.data.min(self.map.len())) as u64;
        table::check_whole(&self.tensors, self.alignment, available)
    }

    /// The bytes of one of the file's own tensors.
    pub(super) fn bytes(&self, tensor: &TensorInfo) -> &[u8] {
        let begin = self.data + tensor.offset as usize;
        self.map
            .get(begin..begin + tensor.bytes as usize)
            .unwrap_or_default()
    }
}

fn parse(bytes: &[u8]) -> Result<Header, GgufError> {
    let mut cursor = Cursor::new(bytes);
    let magic = cursor.array("the magic")?;
    if magic != MAGIC {
        return Err(GgufError::Magic { got: magic });
    }
    let mut version = cursor.u32("the version")?;
    let big_endian = VERSIONS.contains(&version.swap_bytes());
    if big_endian {
        version = version.swap_bytes();
        cursor.set_big_endian();
    }
    if !VERSIONS.contains(&version) {
        return Err(GgufError::Version { got: version });
    }
    let tensor_count = cursor.count("the tensor count", MAX_TENSORS)?;
    let pair_count = cursor.count("the metadata count", MAX_PAIRS)?;
    let metadata = Metadata::read(&mut cursor, pair_count)?;
    let mut tensors = table::read(&mut cursor, tensor_count)?;

    let alignment = metadata
        .size("general.alignment")?
        .unwrap_or(DEFAULT_ALIGNMENT);
    if !ALIGNMENTS.contains(&alignment) || !alignment.is_power_of_two() {
        return Err(GgufError::Alignment { got: alignment });
    }
    let data = (cursor.position() as u64).next_multiple_of(alignment);
    let available = (bytes.len() as u64).saturating_sub(data);
    table::check_places(&mut tensors, alignment, available)?;
    Ok(Header {
        version,
        big_endian,
        metadata,
        tensors,
        data: data as usize,
        alignment,
    })
}

impl fmt::Debug for GgufFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GgufFile")
            .field("version", &self.version)
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}
