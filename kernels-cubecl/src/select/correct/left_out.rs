//! Keys that an index row leaves out of each key block, from its ranges and columns.

use cubecl::prelude::*;

use super::{NOTHING_LEFT, Segment};
use crate::select::BLOCK;

/// The keys left out of a segment of key blocks.
#[derive(CubeType)]
pub(super) struct LeftOut {
    /// Kept keys per block.
    kept: Shared<[Atomic<u32>]>,
    /// Logarithm of the keys left out per block; [`NOTHING_LEFT`] for none.
    pub(super) logs: Shared<[f32]>,
    /// One word: a bit for every step of which any block has keys left out.
    live: Shared<[Atomic<u32>]>,
}

#[cube]
impl LeftOut {
    pub(super) fn new(#[comptime] segment: Segment) -> LeftOut {
        LeftOut {
            kept: Shared::<[Atomic<u32>]>::new_slice(segment.blocks),
            logs: Shared::<[f32]>::new_slice(segment.blocks),
            live: Shared::<[Atomic<u32>]>::new_slice(1usize),
        }
    }

    /// Becomes the segment that begins at block `first`, of a row whose words are at `table[row]` and to
    /// which the blocks from there to before `blocks` are wholly visible, and gives its live steps, those of which any
    /// block has keys left out, as bits. All units of the cube take part.
    pub(super) fn count(
        &mut self,
        table: &[u32],
        row: usize,
        first: u32,
        blocks: u32,
        #[comptime] segment: Segment,
    ) -> u32 {
        // Whoever is behind still reads the last segment.
        sync_cube();
        let units = CUBE_DIM as usize;
        let unit = UNIT_POS as usize;
        let mut i = unit;
        while i < comptime!(segment.blocks) {
            self.kept[i].store(0u32);
            i += units;
        }
        if unit == 0 {
            self.live[0].store(0u32);
        }
        sync_cube();
        let block = comptime!(BLOCK as u32);
        let low = first * block;
        let high = min(first + comptime!(segment.blocks as u32), blocks) * block;
        let (ranges_at, n_ranges) = (table[row], table[row + 1]);
        let mut item = UNIT_POS;
        while item < n_ranges {
            let entry = (ranges_at + item * 2) as usize;
            let mut at = max(table[entry], low);
            let end = min(table[entry + 1], high);
            while at < end {
                let in_block = at / block;
                let stop = min(end, (in_block + 1) * block);
                self.kept[(in_block - first) as usize].fetch_add(stop - at);
                at = stop;
            }
            item += CUBE_DIM;
        }
        let (columns_at, n_columns) = (table[row + 2], table[row + 3]);
        item = UNIT_POS;
        while item < n_columns {
            let column = table[(columns_at + item) as usize];
            if column >= low && column < high {
                self.kept[(column / block - first) as usize].fetch_add(1u32);
            }
            item += CUBE_DIM;
        }
        sync_cube();
        i = unit;
        while i < comptime!(segment.blocks) {
            let kept = self.kept[i].load();
            let mut log = NOTHING_LEFT.runtime();
            if first + (i as u32) < blocks && kept < block {
                log = f32::cast_from(block - kept).ln();
                self.live[0].fetch_or(1u32 << (i / comptime!(segment.step)) as u32);
            }
            self.logs[i] = log;
            i += units;
        }
        sync_cube();
        self.live[0].load()
    }
}
