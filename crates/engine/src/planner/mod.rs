//! Whether a model and a prompt fit on devices, how the layers are shared out, and how long it will take.
//!
//! [`plan`] needs a configuration and numbers of devices, and opens nothing. What does not fit is refused
//! with its breakdown; [`advise`] then finds what does.

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
