//! Error against density and time: selections beside an oracle, on inputs that other programs can make bit for bit, or on
//! the queries, keys and values of every layer of a model.
//!
//! Both are judged on the same query blocks of 128 rows, spread evenly over the prompt, all heads, against
//! dense attention. The oracle says how few keys an error needs at least where whole blocks are kept; a
//! selection says what it kept, what that costs in error, and how long choosing and attending took.

mod choose;
mod inputs;
mod layers;
mod oracle;
#[cfg(test)]
mod oracle_tests;
mod rows;
mod select;
mod selector;
mod sets;

pub use inputs::{Frontier, FrontierSettings, FrontierShape};
pub use layers::{LayersSettings, layers};
pub use selector::{Selector, parse_selectors};
pub use sets::SHARES;
pub use sparse_accelerate_inputs::Family;
