//! A packed row.

// A comptime condition is an `if` of its own: it decides what is compiled.
#![allow(clippy::collapsible_if)]

use cubecl::prelude::*;
use sparse_accelerate_contract::{QUERY_TILE, group::LEVELS};

use super::{RowsBlueprint, Tile};
use crate::{
    select::{
        pack::{NOWHERE, Pack},
        probe::rows,
    },
    table::{HeadRules, Span, Window},
};

/// A packed row: what it sees, and which blocks each level keeps of it.
#[derive(CubeType)]
pub(super) struct Row {
    /// End of the keys it sees; 0 for a row that does not exist.
    pub(super) end: u32,
    /// First key it sees.
    pub(super) low: u32,
    pub(super) tile: Tile,
    share_at: usize,
    cut: u32,
    raised: u32,
}

#[cube]
impl Row {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        pack: &Pack,
        packed: u32,
        span: &Span,
        rules: &[u32],
        cuts: &[u32],
        index_heads: u32,
        tiles: u32,
        blocks: u32,
        window: &Window,
        #[comptime] bp: RowsBlueprint,
    ) -> Row {
        let found = rows::row(pack, packed, bp.probe);
        let mut row = 0u32;
        let mut end = 0u32;
        if found != NOWHERE.runtime() {
            row = found;
            end = span.offset() + found + 1;
        }
        let slot = min(packed % comptime!(bp.split.slots as u32), pack.heads - 1);
        let index_head = (pack.first_head + slot) / comptime!(bp.sharing as u32);
        let tile_at = row / comptime!(QUERY_TILE as u32);
        let rule = HeadRules::of(index_head as usize);
        let at = (pack.b * index_heads + index_head) * tiles + tile_at;
        Row {
            end,
            low: window.first_key(span.offset() + row),
            tile: Tile::new(span, &rule, rules, tile_at, window),
            share_at: at as usize * blocks as usize,
            cut: cuts[at as usize * LEVELS],
            raised: cuts[at as usize * LEVELS + 1],
        }
    }

    /// The class of a block.
    pub(super) fn class(&self, shares: &[f32], block: u32) -> u32 {
        let mut class = 0u32;
        if !self.tile.forced(block) && self.tile.has(block) {
            let share = shares[self.share_at + block as usize];
            if !self.tile.keeps(block, share, self.cut) {
                class = 1u32.runtime();
                if !self.tile.keeps(block, share, self.raised) {
                    class = 2u32.runtime();
                }
            }
        }
        class
    }
}
