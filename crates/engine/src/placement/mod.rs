//! Placement of layers on devices.
//!
//! [`place`] cuts a model into one stage a device, in the order of the devices: for the fastest prefill, for
//! equal shares of memory, or by given counts. It is a function of numbers alone; [`measure_speed`] gives
//! them where devices are unlike.

mod costs;
mod error;
mod place;
mod speed;
mod split;

pub use costs::LayerCosts;
pub use error::SplitError;
pub use place::{StageDevice, place};
pub use speed::measure_speed;
pub use split::Split;
