//! Which rows a cube works on: samples of its query blocks times query heads that share a KV head; and
//! which key blocks they may choose from.

use cubecl::prelude::*;

use super::{SAMPLES, ScoreBlueprint};
use crate::select::BLOCK;

/// A row that does not exist.
pub(super) const NOWHERE: u32 = u32::MAX;

/// What a cube works on.
#[derive(CubeType)]
pub(super) struct Pack {
    /// Sequence.
    pub(super) b: u32,
    /// KV head.
    pub(super) kv_head: u32,
    /// First of the query heads.
    pub(super) first_head: u32,
    /// Query heads, at most as many as there are slots.
    pub(super) heads: u32,
    /// New rows of the sequence.
    pub(super) n: u32,
    /// Position of the first of them.
    pub(super) offset: u32,
    /// First query block.
    pub(super) first_block: u32,
}

#[cube]
impl Pack {
    /// Of cube `cube`: the last query blocks, which have most candidates, come first.
    pub(super) fn new(
        table: &[u32],
        cube: u32,
        spans: u32,
        kv_heads: u32,
        packs: u32,
        heads_per_kv: u32,
        #[comptime] bp: ScoreBlueprint,
    ) -> Pack {
        let slots = comptime!(bp.slots as u32);
        let pack = cube / spans % packs;
        let kv_head = cube / (spans * packs) % kv_heads;
        let b = cube / (spans * packs * kv_heads);
        let n = table[(b * 4) as usize];
        Pack {
            b,
            kv_head,
            first_head: kv_head * heads_per_kv + pack * slots,
            heads: min(slots, heads_per_kv - pack * slots),
            n,
            offset: table[(b * 4 + 1) as usize] - n,
            first_block: (spans - 1 - cube % spans) * comptime!(bp.blocks() as u32),
        }
    }

    /// Query block of a packed row.
    pub(super) fn block(&self, packed: u32, #[comptime] bp: ScoreBlueprint) -> u32 {
        self.first_block + packed / comptime!((SAMPLES * bp.slots) as u32)
    }

    /// Rows that are sampled of a query block.
    pub(super) fn samples(&self, block: u32) -> u32 {
        let first = block * comptime!(BLOCK as u32);
        let mut samples = 0u32;
        if first < self.n {
            samples = clamp(
                (self.n - first + 3) / 8,
                1u32,
                comptime!(SAMPLES as u32).runtime(),
            );
        }
        samples
    }

    /// Query row of a packed row, `NOWHERE` if there is none.
    pub(super) fn row(&self, packed: u32, #[comptime] bp: ScoreBlueprint) -> u32 {
        let slots = comptime!(bp.slots as u32);
        let block = self.block(packed, bp);
        let sample = packed / slots % comptime!(SAMPLES as u32);
        let mut row = NOWHERE.runtime();
        if packed % slots < self.heads && sample < self.samples(block) {
            row = min(
                block * comptime!(BLOCK as u32) + 4 + sample * 8,
                // A block of at most four rows has its first sampled alone.
                self.n - 1,
            );
            if self.n <= block * comptime!(BLOCK as u32) + 4 {
                row = block * comptime!(BLOCK as u32);
            }
        }
        row
    }

    /// End of a query block's candidates under a window.
    // Device code has no `div_ceil`.
    #[allow(clippy::manual_div_ceil)]
    pub(super) fn end(&self, block: u32, window: u32) -> u32 {
        let size = comptime!(BLOCK as u32);
        let first = self.offset + block * size;
        let outside = max(first + 1, window) - window;
        min(first / size, (outside + size - 1) / size)
    }
}
