//! How long a prefill will take, from shapes and rates.
//!
//! Matrix products cost two operations a weight and token, attention four times heads times head dimension a
//! pair of query and key that it computes. A device does each at a rate ([`Rates`]); stages pass chunks on
//! like machines of a flow shop. What choosing keys costs, launches and the host are inside the rates where
//! those were measured on whole models, and nowhere else.

mod density;
mod schedule;
mod work;

pub use density::{Density, DensityError, PUBLISHED};
pub use schedule::flow_shop;
pub use work::{LINK, Rates, StageWork, causal_pairs};
