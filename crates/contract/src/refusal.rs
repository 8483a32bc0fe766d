//! A refusal: a limit of a device that a problem does not keep, as data.

use thiserror::Error;

/// A limit of a device that a problem does not keep: the quantity, the value, the limit, the way out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The device does not compute with the element type.
    #[error("element type {got} is not supported by this device; use {hint}")]
    ElementType {
        /// The type asked for.
        got: String,
        /// Types that would work.
        hint: &'static str,
    },
    /// The device has too little of a resource.
    #[error("{resource} is {limit} on this device, {needed} is needed; use another device")]
    Resource {
        /// The resource.
        resource: &'static str,
        /// The least that is needed.
        needed: usize,
        /// Amount that the device has.
        limit: usize,
    },
    /// A cache of int8 is read for few query rows and many keys alone.
    #[error(
        "an int8 cache is read for few query rows and many keys, not for {rows} rows of this problem; \
         dequantize it first"
    )]
    Int8 {
        /// Query rows of the problem.
        rows: usize,
    },
    /// The problem is too large for one launch or one buffer.
    #[error("{what} is {got}, this device takes at most {limit}; use a smaller chunk or batch")]
    TooLarge {
        /// The quantity.
        what: &'static str,
        /// The value got.
        got: usize,
        /// The most that the device takes.
        limit: usize,
    },
}
