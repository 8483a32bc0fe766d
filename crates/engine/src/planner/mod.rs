//! Plans of a model and a prompt on devices: memory, the stages' layers and predicted times.
//!
//! [`plan`] needs a configuration and numbers of devices, and opens nothing. It refuses a request that does not
//! fit with its breakdown; [`advise`] then finds changes that make it fit.

mod advice;
mod outcome;
mod request;
mod times;

pub use advice::{Advice, Change, advise};
pub use outcome::{Plan, PlannedStage, longest, plan};
pub use request::{PlanDevice, PlanError, PlanRequest};
pub use times::{Schedule, Times};

#[cfg(test)]
mod tests;
