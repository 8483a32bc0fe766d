//! Which rows a cube works on: probe rows of a sequence times query heads that share a KV head.

use cubecl::prelude::*;

use super::ProbeBlueprint;
use crate::select::PROBES;

/// Row of a probe that does not exist.
pub(super) const NOWHERE: u32 = u32::MAX;

/// What a cube of one tile of keys works on.
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
    /// Keys of the sequence.
    pub(super) kv_len: u32,
    /// First key of the tile.
    pub(super) base: u32,
}

#[cube]
impl Pack {
    /// Of tile `cube % key_tiles` of pack `cube / key_tiles`.
    pub(super) fn new(
        table: &[u32],
        cube: u32,
        key_tiles: u32,
        kv_heads: u32,
        packs: u32,
        heads_per_kv: u32,
        #[comptime] bp: ProbeBlueprint,
    ) -> Pack {
        let slots = comptime!(bp.slots as u32);
        let pack = cube / key_tiles % packs;
        let kv_head = cube / (key_tiles * packs) % kv_heads;
        let b = cube / (key_tiles * packs * kv_heads);
        Pack {
            b,
            kv_head,
            first_head: kv_head * heads_per_kv + pack * slots,
            heads: min(slots, heads_per_kv - pack * slots),
            n: table[(b * 4) as usize],
            kv_len: table[(b * 4 + 1) as usize],
            base: cube % key_tiles * comptime!(bp.tile.keys() as u32),
        }
    }

    /// Whether some row of a row tile sees some key of the tile: its last row sees most.
    pub(super) fn sees(&self, row_tile: u32, #[comptime] bp: ProbeBlueprint) -> bool {
        let probes = comptime!(bp.probes() as u32);
        let first = probe_row(row_tile * probes, self.n);
        let mut last = probe_row(row_tile * probes + (probes - 1), self.n);
        if last == NOWHERE.runtime() {
            // Then the rows are the first `n` probes.
            last = self.n - 1;
        }
        first != NOWHERE.runtime() && self.base <= self.kv_len - self.n + last
    }

    /// Query row of a packed row, `NOWHERE` if there is none.
    pub(super) fn row(&self, packed: u32, #[comptime] bp: ProbeBlueprint) -> u32 {
        let slots = comptime!(bp.slots as u32);
        let mut row = probe_row(packed / slots, self.n);
        if packed % slots >= self.heads {
            row = NOWHERE.runtime();
        }
        row
    }
}

/// Row of a probe among `n` new rows.
#[cube]
pub(super) fn probe_row(probe: u32, n: u32) -> u32 {
    let half = comptime!((PROBES / 2) as u32);
    let mut row = NOWHERE.runtime();
    if probe < half {
        if n >= half {
            row = n - half + probe;
        } else if probe < n {
            row = probe;
        }
    } else if n >= comptime!(2 * half) {
        row = ((probe - half) * 2 + 1) * n / comptime!(2 * half);
    }
    row
}

/// Probe rows of a group.
#[cube]
pub(super) fn valid_probes(group: u32, n: u32) -> u32 {
    let half = comptime!((PROBES / 2) as u32);
    let mut valid = min(n, half);
    if group == 1 {
        valid = 0u32;
        if n >= comptime!(2 * half) {
            valid = half.runtime();
        }
    }
    valid
}
