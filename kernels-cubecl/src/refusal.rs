//! Why a problem will not run on a device, as data.

use thiserror::Error;

/// A refusal: what was asked, the value, the device's limit, the way out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The device does not compute with this element type.
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
        /// Which limit.
        resource: &'static str,
        /// What the smallest tile needs.
        needed: usize,
        /// What the device has.
        limit: usize,
    },
    /// The problem is too large for one launch or one buffer.
    #[error("{what} is {got}, this device takes at most {limit}; use a smaller chunk or batch")]
    TooLarge {
        /// Which quantity.
        what: &'static str,
        /// The value got.
        got: usize,
        /// The limit.
        limit: usize,
    },
}
