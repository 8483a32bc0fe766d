//! Safetensors weights: mapped, checked, and each tensor handed out once.
//!
//! `header` reads what a file declares, `layout` checks it against the bytes, `shard` is one mapped file, `index` the map over
//! several, `names` brings names to those of the classes, [`Weights`] is the checkpoint as a whole. No
//! tensor is copied until [`WeightView::to_f32`].

mod checkpoint;
mod header;
mod index;
mod layout;
mod names;
mod near;
mod shard;
mod view;

pub use checkpoint::Weights;
pub(crate) use shard::{Shard, ShardTensor};
pub use view::WeightView;
