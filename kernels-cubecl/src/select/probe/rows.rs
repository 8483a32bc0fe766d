//! The rows of a cube: probe rows of a sequence times query heads that share a KV head.

use cubecl::prelude::*;
use sparse_accelerate_contract::PROBE_GROUP;

use super::ProbeBlueprint;
use crate::{
    select::pack::{NOWHERE, Pack},
    table::Window,
};

/// Finds the pack of tile `cube % key_tiles` of the keys; it begins at the tile's first key.
#[cube]
pub(super) fn pack(
    table: &[u32],
    cube: u32,
    key_tiles: u32,
    kv_heads: u32,
    packs: u32,
    heads_per_kv: u32,
    #[comptime] bp: ProbeBlueprint,
) -> Pack {
    let first = cube % key_tiles * comptime!(bp.tile.keys() as u32);
    Pack::new(
        table,
        cube,
        key_tiles,
        first,
        kv_heads,
        packs,
        heads_per_kv,
        comptime!(bp.slots),
    )
}

/// Tells whether some row of a row tile sees some key of the tile: its last row sees most, its first row
/// the earliest.
#[cube]
pub(super) fn sees(
    pack: &Pack,
    row_tile: u32,
    window: &Window,
    #[comptime] bp: ProbeBlueprint,
) -> bool {
    let probes = comptime!(bp.probes() as u32);
    let query_len = pack.span.query_len;
    let first = row_of(row_tile * probes, query_len, bp);
    let mut last = row_of(row_tile * probes + (probes - 1), query_len, bp);
    if last == NOWHERE.runtime() {
        // Then the rows are the first probes, as many as there are rows.
        last = query_len - 1;
    }
    let begins = first != NOWHERE.runtime() && pack.first <= pack.span.offset() + last;
    if comptime!(window.some) {
        let end = pack.first + comptime!(bp.tile.keys() as u32);
        begins && window.first_key(pack.span.offset() + first) < end
    } else {
        begins
    }
}

/// End of the keys that the last row of a row tile sees; 0 where it has none. Samples' rows grow with their number.
#[cube]
pub(in crate::select) fn last_end(
    pack: &Pack,
    row_tile: u32,
    #[comptime] bp: ProbeBlueprint,
) -> u32 {
    let probes = comptime!(bp.probes() as u32);
    let last = min(
        row_tile * probes + (probes - 1),
        comptime!(bp.samples as u32) - 1,
    );
    let mut end = 0u32;
    if pack.span.query_len > 0 {
        end = pack.span.offset() + sampled_row(last, pack.span.query_len, bp.samples) + 1;
    }
    end
}

/// Tells whether a window hides all keys of the tile from all rows of the sequence.
#[cube]
pub(super) fn hidden(pack: &Pack, window: &Window, #[comptime] bp: ProbeBlueprint) -> bool {
    pack.first + comptime!(bp.tile.keys() as u32) <= window.first_key(pack.span.offset())
}

/// Gives the first key, counted in the tile, that the row at a position sees.
#[cube]
pub(super) fn low(pack: &Pack, position: u32, window: &Window) -> u32 {
    if comptime!(window.some) {
        max(window.first_key(position), pack.first) - pack.first
    } else {
        0u32.runtime()
    }
}

/// Gives the query row of a packed row, `NOWHERE` if there is none.
#[cube]
pub(in crate::select) fn row(pack: &Pack, packed: u32, #[comptime] bp: ProbeBlueprint) -> u32 {
    let slots = comptime!(bp.slots as u32);
    let mut row = row_of(packed / slots, pack.span.query_len, bp);
    if packed % slots >= pack.heads {
        row = NOWHERE.runtime();
    }
    row
}

/// Gives the row of a probe, or of a sample, among `n` new rows.
#[cube]
fn row_of(probe: u32, n: u32, #[comptime] bp: ProbeBlueprint) -> u32 {
    if comptime!(bp.samples > 0) {
        let mut row = NOWHERE.runtime();
        if probe < comptime!(bp.samples as u32) && n > 0 {
            row = sampled_row(probe, n, bp.samples);
        }
        row
    } else {
        probe_row(probe, n)
    }
}

/// Gives sample `sample` of `samples` among `n` rows; on the host
/// `sparse_accelerate_contract::group::sampled_row`.
#[cube]
pub(crate) fn sampled_row(sample: u32, n: u32, #[comptime] samples: usize) -> u32 {
    (2 * sample + 1) * n / comptime!(2 * samples as u32)
}

/// Gives the row of a probe among `n` new rows; on the host `sparse_accelerate_contract::probe_row`.
#[cube]
pub(super) fn probe_row(probe: u32, n: u32) -> u32 {
    let half = comptime!(PROBE_GROUP as u32);
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

/// Counts the probe rows of a group.
#[cube]
pub(super) fn valid_probes(group: u32, n: u32) -> u32 {
    let half = comptime!(PROBE_GROUP as u32);
    let mut valid = min(n, half);
    if group == 1 {
        valid = 0u32;
        if n >= comptime!(2 * half) {
            valid = half.runtime();
        }
    }
    valid
}
