//! The universal index: for every query tile, the key ranges and single columns it may see.
//!
//! One structure for all patterns, one kernel that reads it. Per (sequence, index head, query tile)
//! there is a *row*: ascending disjoint key ranges `[start, end)` in tokens whose starts are aligned
//! to [`RANGE_ALIGN`], and ascending single columns outside the ranges and before the tile. Causal
//! visibility and the [`Band`] are applied per element on top, so a range may cross the diagonal.
//! One index head may serve one query head, one KV head, or all of them.

mod band;
mod build;
mod fixed_blocks;
mod tile_index;
mod validate;

pub use band::Band;
pub use build::{Builder, block_cluster, full, interval_slash, triangular};
pub use fixed_blocks::fixed_blocks;
pub use sparse_accelerate_contract::{QUERY_TILE, RANGE_ALIGN};
pub use tile_index::{Row, TileIndex};
