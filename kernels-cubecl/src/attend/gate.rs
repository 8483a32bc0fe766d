//! Gates: which of two launches serves a head.
//!
//! A selection on the device may find that a head is better off dense. The host does not know, so it
//! launches both kernels, the sparse one over the table's rows and the dense one; each serves the heads
//! whose gate says so, and the cubes of the others leave before they write anything.

use cubecl::prelude::*;

use super::QUERY_TILE;

/// Rows of the table per sequence and index head, which gates come after.
#[cube]
pub(super) fn row_tiles(tiles: u32, n_rows: u32, #[comptime] indexed: bool) -> u32 {
    if comptime!(indexed) {
        tiles
    } else {
        // The launch's own tiles are others.
        n_rows.div_ceil(comptime!(QUERY_TILE as u32))
    }
}

/// Whether this launch serves an index head of a sequence; the same for every unit of a cube.
#[cube]
pub(super) fn serves(
    table: &[u32],
    batch: u32,
    index_heads: u32,
    row_tiles: u32,
    sequence: u32,
    index_head: u32,
    #[comptime] indexed: bool,
) -> bool {
    let rows = batch * index_heads * row_tiles;
    let at = batch * 4 + rows * 4 + sequence * index_heads + index_head;
    table[at as usize] == comptime!(if indexed { 0u32 } else { 1u32 })
}
