//! How a prompt grows: what all tasks have in common.

use crate::{error::EvalError, format::Question};

/// A sample with everything drawn but its size.
pub(super) trait Recipe {
    /// Fewest and most units.
    fn range(&self) -> (usize, usize);

    /// About how many tokens a unit has; only speed depends on it.
    fn rate(&self) -> f64;

    /// The prompt of `units` units, the same each time.
    fn make(&self, units: usize) -> Question;

    /// Words to say when all units are used and the prompt is `short` tokens short; `None` where there
    /// is nothing to run out of.
    fn exhausted(&self, _short: usize, _length: usize) -> Option<EvalError> {
        None
    }
}
