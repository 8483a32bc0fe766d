//! Estimated time of a prefill, from shapes and rates.
//!
//! Matrix products cost two operations a weight and token, attention four times heads times head dimension a
//! pair of query and key that it computes. A device does each at a rate ([`Rates`]); stages pass chunks on
//! like machines of a flow shop. Rates that were measured on whole models
//! include the cost of launches, of the host and of choosing keys; other rates do not.

mod density;
mod schedule;
mod work;

pub use density::{Density, DensityError, PUBLISHED};
pub use schedule::flow_shop;
pub use work::{
    ATTENTION_RATE, H100_ATTENTION, H100_LINEAR, LINK, Rates, StageWork, WHOLE_MODEL_RATE,
};
