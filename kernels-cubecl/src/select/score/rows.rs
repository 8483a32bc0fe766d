//! The rows of a cube: samples of its query blocks times query heads that share a KV head; and the key
//! blocks that they may choose from.

use cubecl::prelude::*;

use super::{SAMPLES, ScoreBlueprint, Tile};
use crate::{
    select::{
        BLOCK,
        pack::{NOWHERE, Pack},
        product::{self, Sums},
    },
    table::Window,
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

/// Gives the first key block of which the first row of a query block sees a key.
#[cube]
pub(super) fn begin(pack: &Pack, block: u32, window: &Window) -> u32 {
    if comptime!(window.some) {
        let size = comptime!(BLOCK as u32);
        window.first_key(pack.offset + block * size) / size
    } else {
        0u32.runtime()
    }
}

/// Replaces the scores of the unit's row `r` outside its candidates `[low, high)`, and lowers that of a block
/// of which a window shows it a part. The tile's key blocks count from `base` on.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn mask(
    sums: &mut Sums,
    pack: &Pack,
    base: u32,
    low: u32,
    high: u32,
    scale: f32,
    window: &Window,
    #[comptime] r: usize,
    #[comptime] bp: ScoreBlueprint,
) {
    let tile = comptime!(bp.tile);
    let (m, h) = comptime!((r / 2, r % 2));
    if comptime!(window.some) {
        let packed = (product::first_row(tile) + comptime!(r * 8)) as u32;
        let seen = window.first_key(pack.offset + row(pack, packed, bp));
        let cut = seen / comptime!(BLOCK as u32);
        product::mask_row(sums, base, max(low, cut), high, m, h, tile);
        let hidden = seen % comptime!(BLOCK as u32);
        if hidden > 0 && cut >= base && cut < base + comptime!(tile.keys() as u32) {
            let part = f32::cast_from(comptime!(BLOCK as u32) - hidden) / comptime!(BLOCK as f32);
            // Scores are scaled later; what is masked stays so.
            lower(sums, cut - base, part.ln() / scale, m, h, tile);
        }
    } else {
        product::mask_row(sums, base, low, high, m, h, tile);
    }
}

/// Adds `term` to the score of key `key` of the tile, in the unit's row `h` of its block `m`.
#[cube]
fn lower(
    sums: &mut Sums,
    key: u32,
    term: f32,
    #[comptime] m: usize,
    #[comptime] h: usize,
    #[comptime] tile: Tile,
) {
    let first = product::first_key(tile) as u32;
    #[unroll]
    for j in 0..comptime!(tile.key_tiles) {
        let a = sums.index_mut(comptime!(m * tile.key_tiles + j));
        let mut pair: product::Pair<f32> = a[h];
        #[unroll]
        for c in 0..2usize {
            if first + comptime!((j * 8 + c) as u32) == key {
                let lowered = pair.extract(c) + term;
                pair.insert(c, lowered);
            }
        }
        a[h] = pair;
    }
}

/// Gives the end of a query block's candidates under a window of its head's rule.
#[cube]
// Device code has no `div_ceil`.
#[allow(clippy::manual_div_ceil)]
pub(super) fn end(pack: &Pack, block: u32, window: u32) -> u32 {
    let size = comptime!(BLOCK as u32);
    let first = pack.offset + block * size;
    let outside = max(first + 1, window) - window;
    min(first / size, (outside + size - 1) / size)
}
