//! Refusals of inputs: what failed, the value got, the limit, the way out.

use thiserror::Error;

/// Inputs that the rules do not define, or that disagree with each other.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum InputError {
    /// A count is outside its range.
    #[error("inputs: {what} is {got}, but must be 1 to {limit}")]
    Range {
        /// Name of the count.
        what: &'static str,
        /// The value got.
        got: usize,
        /// The largest value.
        limit: usize,
    },
    /// The query heads cannot share the KV heads evenly.
    #[error("inputs: {heads} heads are not a multiple of {kv_heads} KV heads; change either")]
    Heads {
        /// Query heads.
        heads: usize,
        /// KV heads.
        kv_heads: usize,
    },
    /// The structured family gives every one of 128 dimensions its part.
    #[error("inputs: structured needs head_dim 128, got {got}; use the random family")]
    StructuredHeadDim {
        /// The value got.
        got: usize,
    },
    /// A block size does not divide the sequence.
    #[error("block mask: {what} {block} does not divide {len} tokens; choose one that does")]
    Block {
        /// Name of the block size.
        what: &'static str,
        /// The value got.
        block: usize,
        /// Tokens in the sequence.
        len: usize,
    },
    /// The density asked for is no share of the causal blocks.
    #[error("block mask: density is {got}, but must be above 0 and at most 1")]
    Density {
        /// The value got.
        got: f64,
    },
    /// The list of kept blocks needs offsets of more than 32 bits.
    #[error("block mask: {kept} kept blocks are over the limit of 2^32 - 1; use larger blocks")]
    MaskTooLarge {
        /// Kept blocks of all heads.
        kept: u128,
    },
    /// A tensor or row has not the elements its shape says.
    #[error("oracle: {what} has {got} elements, expected {expected}; give it the problem's shape")]
    Elements {
        /// Name of the tensor or row.
        what: &'static str,
        /// Elements got.
        got: usize,
        /// Elements the shape has.
        expected: usize,
    },
}

/// `got` if it is one of 1 to `limit`.
pub(crate) fn in_range(what: &'static str, got: usize, limit: usize) -> Result<(), InputError> {
    if (1..=limit).contains(&got) {
        Ok(())
    } else {
        Err(InputError::Range { what, got, limit })
    }
}
