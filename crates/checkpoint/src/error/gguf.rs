//! Faults of a GGUF file, and what the importer does not support.
//!
//! Offsets are in bytes from the beginning of the file unless a field says otherwise.

/// Refusals of a GGUF file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The first four bytes are not `GGUF`.
    #[error("the file begins with {got:02x?}, expected the magic `GGUF`")]
    Magic {
        /// The bytes found.
        got: [u8; 4],
    },
    /// The version is not supported.
    #[error("GGUF version {got} is not supported, versions 2 and 3 are: convert the file again")]
    Version {
        /// The version found.
        got: u32,
    },
    /// Numbers lie with their highest byte first.
    #[error(
        "the file is big endian, little endian is imported: convert the model again for little endian"
    )]
    BigEndian,
    /// The file ends inside the header.
    #[error("the file ends at byte {size} while reading {what} at byte {at}: fetch it again")]
    Truncated {
        /// Part of the file that was being read.
        what: &'static str,
        /// Offset at which that part begins, in bytes.
        at: u64,
        /// File size.
        size: u64,
    },
    /// A count or a length is over its limit.
    #[error("{what} is {got}, the limit is {limit}")]
    Limit {
        /// Name of the counted items.
        what: &'static str,
        /// The value found.
        got: u64,
        /// The largest value accepted.
        limit: u64,
    },
    /// A string is not UTF-8.
    #[error("{what} at byte {at} is not UTF-8")]
    Utf8 {
        /// Part of the file that was being read.
        what: &'static str,
        /// Offset at which that part begins, in bytes.
        at: u64,
    },
    /// A metadata value has a type that is unknown or not allowed there.
    #[error("metadata `{key}` has value type {got}, expected {expected}")]
    ValueType {
        /// The key.
        key: String,
        /// The type found.
        got: String,
        /// The types accepted.
        expected: &'static str,
    },
    /// A metadata key or a tensor name stands twice.
    #[error("{what} `{name}` stands twice")]
    Duplicate {
        /// Metadata key or tensor.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The alignment is unusable.
    #[error("general.alignment is {got}, expected a power of two in 8..=1048576")]
    Alignment {
        /// The value found.
        got: u64,
    },
    /// A tensor has no usable shape.
    #[error("tensor {name} has dims {got:?}: {rule}")]
    TensorDims {
        /// The tensor.
        name: String,
        /// Dims of the tensor, fastest first as in the file.
        got: Vec<u64>,
        /// The rule broken.
        rule: &'static str,
    },
    /// A tensor has a block format that is not supported.
    #[error(
        "tensor {name} has ggml type {got}, supported are {}: use a file of those; `inspect` lists what it holds",
        crate::gguf::readable_formats()
    )]
    TensorType {
        /// The tensor.
        name: String,
        /// The type's number, with its name where known.
        got: String,
    },
    /// A tensor lies outside the file, unaligned, or inside another.
    #[error("tensor {name} at offset {offset} of the data ({bytes} bytes): {rule}")]
    TensorOffset {
        /// The tensor.
        name: String,
        /// Offset in the data section.
        offset: u64,
        /// Size in bytes.
        bytes: u64,
        /// The rule broken.
        rule: String,
    },
    /// Metadata that the import needs is absent.
    #[error("metadata `{key}` is missing: the file is no complete model")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// Metadata holds a value that the import does not support.
    #[error("metadata `{key}` is {got}, supported: {supported}")]
    Unsupported {
        /// The key.
        key: String,
        /// The value, shortened.
        got: String,
        /// Supported alternatives.
        supported: &'static str,
    },
    /// A piece of the file is missing beside another, or contradicts it.
    #[error("{key} is {got}, expected {expected}: {way_out}")]
    Contradiction {
        /// The metadata key or the tensor.
        key: String,
        /// The value found, shortened, or `missing`.
        got: String,
        /// The value that the rest of the file implies.
        expected: String,
        /// The way out.
        way_out: &'static str,
    },
    /// The vocabulary contradicts itself.
    #[error("the vocabulary is inconsistent: {reason}")]
    Vocabulary {
        /// Description of the contradiction.
        reason: String,
    },
    /// A tensor that the architecture needs is absent.
    #[error("tensor {name} is missing: the file is no complete model (or one part of a split one)")]
    MissingTensor {
        /// The tensor, by its GGUF name where it has one.
        name: String,
    },
    /// A tensor that the architecture does not have.
    #[error("tensor {name} is in the file but its architecture does not use it")]
    UnexpectedTensor {
        /// The tensor.
        name: String,
    },
    /// A tensor has another shape than the metadata implies.
    #[error("tensor {name} has shape {got:?}, the metadata implies {expected:?}")]
    TensorShape {
        /// The tensor.
        name: String,
        /// The shape found, slowest first.
        got: Vec<usize>,
        /// The shape expected.
        expected: Vec<usize>,
    },
    /// A value is not finite after conversion.
    #[error("tensor {name} has a value that is not finite as {dtype}: {hint}")]
    NonFinite {
        /// The tensor.
        name: String,
        /// The target type.
        dtype: &'static str,
        /// The way out.
        hint: &'static str,
    },
}
