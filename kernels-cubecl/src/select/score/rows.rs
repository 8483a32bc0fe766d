//! The rows of a cube: samples of its query blocks times query heads that share a KV head; and the key
//! blocks that they may choose from.

use cubecl::prelude::*;

use super::{SAMPLES, ScoreBlueprint};
use crate::select::{
    BLOCK,
    pack::{NOWHERE, Pack},
};

/// Finds the pack of a cube's query blocks; it begins at the first of them. The last query blocks, which
/// have most candidates, come first.
#[cube]
pub(super) fn pack(
    table: &[u32],
    cube: u32,
    parts: u32,
    kv_heads: u32,
    packs: u32,
    heads_per_kv: u32,
    #[comptime] bp: ScoreBlueprint,
) -> Pack {
    let first = (parts - 1 - cube % parts) * comptime!(bp.blocks() as u32);
    Pack::new(
        table,
        cube,
        parts,
        first,
        kv_heads,
        packs,
        heads_per_kv,
        comptime!(bp.slots),
    )
}

/// Gives the query block of a packed row.
#[cube]
pub(super) fn block(pack: &Pack, packed: u32, #[comptime] bp: ScoreBlueprint) -> u32 {
    pack.first + packed / comptime!((SAMPLES * bp.slots) as u32)
}

/// Counts the rows that are sampled of a query block.
#[cube]
pub(super) fn samples(pack: &Pack, block: u32) -> u32 {
    let first = block * comptime!(BLOCK as u32);
    let query_len = pack.span.query_len;
    let mut samples = 0u32;
    if first < query_len {
        samples = clamp(
            (query_len - first + 3) / 8,
            1u32,
            comptime!(SAMPLES as u32).runtime(),
        );
    }
    samples
}

/// Gives the query row of a packed row, `NOWHERE` if there is none.
#[cube]
pub(super) fn row(pack: &Pack, packed: u32, #[comptime] bp: ScoreBlueprint) -> u32 {
    let slots = comptime!(bp.slots as u32);
    let query_len = pack.span.query_len;
    let block = block(pack, packed, bp);
    let sample = packed / slots % comptime!(SAMPLES as u32);
    let mut row = NOWHERE.runtime();
    if packed % slots < pack.heads && sample < samples(pack, block) {
        row = min(
            block * comptime!(BLOCK as u32) + 4 + sample * 8,
            // A block of at most four rows has its first sampled alone.
            query_len - 1,
        );
        if query_len <= block * comptime!(BLOCK as u32) + 4 {
            row = block * comptime!(BLOCK as u32);
        }
    }
    row
}

/// Gives the end of a query block's candidates under a window.
#[cube]
// Device code has no `div_ceil`.
#[allow(clippy::manual_div_ceil)]
pub(super) fn end(pack: &Pack, block: u32, window: u32) -> u32 {
    let size = comptime!(BLOCK as u32);
    let first = pack.offset + block * size;
    let outside = max(first + 1, window) - window;
    min(first / size, (outside + size - 1) / size)
}
