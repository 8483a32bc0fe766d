//! Faults of a safetensors file and of the index over its shards.
//!
//! Offsets are in bytes from the end of the header, as the format counts them.

/// Refusals of a safetensors file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SafeTensorsError {
    /// The file cannot even hold the header's length.
    #[error("the file is {got} bytes, a safetensors file has at least 8: fetch it again")]
    TooShort {
        /// File size in bytes.
        got: u64,
    },
    /// The header is declared larger than any real one.
    #[error(
        "the header is declared {got} bytes long, the limit is {limit}: this is no safetensors file"
    )]
    HeaderTooLarge {
        /// Declared length in bytes.
        got: u64,
        /// Largest length read.
        limit: u64,
    },
    /// The header runs past the end of the file.
    #[error(
        "the header is declared {got} bytes long, the file has {available} after its first 8: fetch it again"
    )]
    HeaderBeyondFile {
        /// Declared length in bytes.
        got: u64,
        /// Bytes there are.
        available: u64,
    },
    /// The header does not parse.
    #[error("the header is not the JSON of a safetensors file: {0}")]
    HeaderJson(#[source] serde_json::Error),
    /// One name stands twice in the header.
    #[error("tensor {name} is declared twice")]
    DuplicateName {
        /// The tensor.
        name: String,
    },
    /// The element type is not one of the format's.
    #[error("tensor {name} has the unknown dtype {got}")]
    UnknownDtype {
        /// The tensor.
        name: String,
        /// The dtype found.
        got: String,
    },
    /// The end of a tensor lies before its beginning.
    #[error("tensor {name} has data_offsets [{begin}, {end}], which end before they begin")]
    OffsetsReversed {
        /// The tensor.
        name: String,
        /// First byte.
        begin: u64,
        /// One past the last byte.
        end: u64,
    },
    /// A tensor lies partly outside the file.
    #[error(
        "tensor {name} ends at byte {end}, the file has {available} bytes of data: fetch it again"
    )]
    OffsetsOutOfRange {
        /// The tensor.
        name: String,
        /// One past the last byte.
        end: u64,
        /// Bytes of data in the file.
        available: u64,
    },
    /// Two tensors share bytes.
    #[error("tensor {name} begins at byte {begin}, inside {other}, which ends at {other_end}")]
    Overlap {
        /// The later tensor.
        name: String,
        /// First byte of the tensor.
        begin: u64,
        /// The earlier tensor.
        other: String,
        /// One past its last byte.
        other_end: u64,
    },
    /// Bytes that belong to no tensor.
    #[error(
        "tensor {name} begins at byte {begin}, the data before it ends at {expected}: the format allows no gap"
    )]
    Gap {
        /// The tensor after the gap.
        name: String,
        /// First byte of the tensor.
        begin: u64,
        /// Offset at which the tensor should begin, in bytes.
        expected: u64,
    },
    /// The size does not follow from shape and dtype.
    #[error(
        "tensor {name} of shape {shape:?} and dtype {dtype} has {got} bytes, expected {}",
        .expected.map_or_else(|| "a whole number below 2^64".to_owned(), |n| n.to_string())
    )]
    Size {
        /// The tensor.
        name: String,
        /// Shape of the tensor.
        shape: Vec<u64>,
        /// Dtype of the tensor.
        dtype: String,
        /// Bytes by its offsets.
        got: u64,
        /// Bytes by shape and dtype; `None` when they overflow or do not fill whole bytes.
        expected: Option<u64>,
    },
    /// Bytes after the last tensor.
    #[error(
        "the file has {got} bytes of data, its tensors end at {expected}: the rest belongs to nothing"
    )]
    TrailingBytes {
        /// Bytes of data in the file.
        got: u64,
        /// Offset at which the last tensor ends, in bytes.
        expected: u64,
    },
    /// The `safetensors` crate refuses what the checks above let pass.
    #[error("the header is refused: {0}")]
    Refused(#[source] safetensors::SafeTensorError),
}

/// Mismatches between a set of shards and its index.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// `weight_map` is absent, empty or not an object of strings.
    #[error("`weight_map` is unusable ({reason}), expected an object of tensor name to file name")]
    WeightMap {
        /// Description of the fault.
        reason: String,
    },
    /// One tensor stands twice in the map.
    #[error("tensor {name} is mapped twice")]
    DuplicateName {
        /// The tensor.
        name: String,
    },
    /// A shard name is not a plain file name.
    #[error(
        "shard name {shard:?} is not a plain *.safetensors file name: shards lie beside the index"
    )]
    ShardName {
        /// The name found.
        shard: String,
    },
    /// The map has more shards than any real model.
    #[error("the map names {got} shards, the limit is {limit}")]
    TooManyShards {
        /// Shards named.
        got: usize,
        /// Most shards read.
        limit: usize,
    },
    /// A shard is not there.
    #[error("shard {shard} is missing: fetch the model again")]
    MissingShard {
        /// The file name.
        shard: String,
    },
    /// A tensor is not in the shard the map gives.
    #[error("tensor {name} should be in {shard}, which does not hold it")]
    NotInShard {
        /// The tensor.
        name: String,
        /// The file name.
        shard: String,
    },
    /// A shard holds a tensor that the map does not place there.
    #[error("shard {shard} holds tensor {name}, which the map does not place there")]
    NotInMap {
        /// The tensor.
        name: String,
        /// The file name.
        shard: String,
    },
}
