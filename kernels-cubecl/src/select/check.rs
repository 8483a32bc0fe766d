//! The share of the probe rows' attention that kept keys hold, measured; heads below their floor turn
//! dense.
//!
//! ```text
//! recall = min over query heads of the index head, over groups of probes, of mean_r exp(lse[r] - probe[r])
//! ```
//!
//! with `lse` of the sparse pass, before what it left out is corrected for, and `probe` of all keys. A
//! group without valid rows counts for nothing. The report gets recall (at most 1) and density; where
//! recall is below what the rules accept, or not a number, and dense is allowed, the gate opens for the dense
//! pass, with the reason [`Why::MeasuredBelowFloor`]. A head that is dense already has recall 1 and density 1.
//!
//! Density is kept over causal pairs: a row that is `i` rows before its tile's last sees `i` keys fewer.
//! Under a window it is kept over visible pairs, of which `kept` has those of each tile.
//!
//! The floor here is the accepted recall: what was aimed at is a little more, so that noise of the
//! estimates does not make a head dense. Probes are rows of the spans given for them, which leave out
//! rows that see everything.
//!
//! One cube owns one index head of one sequence; a unit owns a probe row. Sums in f32, by halves.

use cubecl::{client::Client, prelude::*};
use sparse_accelerate_contract::{PROBE_GROUP, table::DENSE};

use super::{Choice, PROBES, Report, Shape, Why};
use crate::{
    attend::QUERY_TILE,
    table::{HeadReport, HeadRules, Span, Window, gate_at},
};

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn check_heads(
    lse: &[f32],
    probe: &[f32],
    kept: &[u32],
    rules: &[u32],
    spans: &[u32],
    table: &mut [u32],
    report: &mut [f32],
    batch: u32,
    heads: u32,
    index_heads: u32,
    rows: u32,
    tiles: u32,
    window: ComptimeOption<u32>,
) {
    let cube = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
    if cube >= batch * index_heads {
        terminate!();
    }
    let b = cube / index_heads;
    let index_head = cube % index_heads;
    let heads_per_index = heads / index_heads;
    let span = Span::of(&*table, b);
    let query_len = span.query_len;
    let offset = span.offset();
    let gate_at = gate_at(batch, batch * index_heads * tiles, cube);
    let own = HeadReport::of(cube as usize);
    let rule = HeadRules::of(index_head as usize);
    let dense = table[gate_at] == DENSE;
    let mut board = Shared::<[f32]>::new_slice(PROBES);
    let mut causal = Shared::<[f32]>::new_slice(PROBES);

    // The row of this unit's probe.
    let unit = UNIT_POS;
    let probed = Span::of(spans, b).query_len;
    let group_rows = comptime!(PROBE_GROUP as u32);
    let first = unit < group_rows;
    let whole = probed >= group_rows;
    let mut row = unit;
    let mut valid = unit < probed;
    if first && whole {
        row = probed - group_rows + unit;
    } else if !first {
        // The middles of 64 equal parts.
        row = (2 * (unit - group_rows) + 1) * probed / comptime!(PROBES as u32);
        valid = probed >= comptime!(PROBES as u32);
    }
    let last_rows = min(probed, group_rows);

    let floor = rule.accepted(rules);
    let mut lowest = f32::new(1.0);
    let mut met = true.runtime();
    if !dense {
        for i in 0..heads_per_index {
            let head = b * heads + index_head * heads_per_index + i;
            let mut share = f32::new(0.0);
            if valid {
                let of_all = probe[(head * comptime!(PROBES as u32) + unit) as usize];
                share = (lse[(head * rows + row) as usize] - of_all).exp();
            }
            board[unit as usize] = share;
            halve(&mut board, PROBE_GROUP);
            if probed > 0 {
                let last = board[0] / f32::cast_from(last_rows);
                met = met && last >= floor;
                lowest = lower(lowest, last);
            }
            if probed >= comptime!(PROBES as u32) {
                let spread = board[comptime!(PROBE_GROUP)] / comptime!(PROBE_GROUP as f32);
                met = met && spread >= floor;
                lowest = lower(lowest, spread);
            }
            sync_cube();
        }
    }

    let window = Window::of(&window);
    let mut kept_pairs = f32::new(0.0);
    let mut all_pairs = f32::new(0.0);
    let mut tile = unit;
    while tile * comptime!(QUERY_TILE as u32) < query_len {
        let start = tile * comptime!(QUERY_TILE as u32);
        let end = min(start + comptime!(QUERY_TILE as u32), query_len);
        let n = f32::cast_from(end - start);
        // A row that is `i` rows before the tile's last sees `i` keys fewer, of what is kept as of all.
        let missing = n * (n - 1.0) / 2.0;
        if comptime!(window.some) {
            kept_pairs += f32::cast_from(kept[(cube * tiles + tile) as usize]);
            all_pairs += seen_pairs(offset + start, offset + end, &window);
        } else {
            kept_pairs += n * f32::cast_from(kept[(cube * tiles + tile) as usize]) - missing;
            all_pairs += n * f32::cast_from(offset + end) - missing;
        }
        tile += comptime!(PROBES as u32);
    }
    board[unit as usize] = kept_pairs;
    causal[unit as usize] = all_pairs;
    halve(&mut board, PROBES);
    halve(&mut causal, PROBES);

    if unit == 0 {
        let may_be_dense = rule.allowed(rules) & comptime!(Choice::Dense.bit()) != 0;
        let opens = !dense && !met && may_be_dense;
        let mut density = f32::new(1.0);
        if !dense && !opens && query_len > 0 {
            density = board[0] / causal[0];
        }
        if opens {
            table[gate_at] = DENSE.runtime();
            let why = f32::new(comptime!(Why::MeasuredBelowFloor.number() as f32));
            own.put(report, why, Report::WHY);
        }
        own.put(report, lowest, Report::RECALL);
        own.put(report, density, Report::DENSITY);
    }
}

/// Pairs of the rows at positions `[first, end)` and the keys that they see through a window.
#[cube]
fn seen_pairs(first: u32, end: u32, window: &Window) -> f32 {
    // Rows that see all keys up to their own, each one more than the one before.
    let whole = f32::cast_from(max(min(end, window.keys), first) - first);
    let rest = f32::cast_from(end - first) - whole;
    whole * f32::cast_from(first + 1)
        + whole * (whole - 1.0) / 2.0
        + rest * f32::cast_from(window.keys)
}

/// The lesser of two; what is not a number stays.
#[cube]
fn lower(a: f32, b: f32) -> f32 {
    select(b >= a, a, b)
}

/// Adds up each `part` of the board into its first entry.
#[cube]
fn halve(board: &mut Shared<[f32]>, #[comptime] part: usize) {
    let unit = UNIT_POS as usize;
    #[unroll]
    for stage in 0..comptime!(part.ilog2() as usize) {
        let half = comptime!(part >> (stage + 1));
        sync_cube();
        if unit % part < half {
            board[unit] += board[unit + half];
        }
    }
    sync_cube();
}

/// The buffers of a call, contiguous.
#[allow(missing_debug_implementations)] // launch arguments have none
pub struct Tensors {
    /// `[B, Hq, N]` of the sparse pass.
    pub lse: BufferArg,
    /// `[B, Hq, PROBES]` over all keys that the probe rows see.
    pub probe: BufferArg,
    /// `[B * Hi * tiles]` as [`super::build`] leaves it: keys that the last row of a tile sees, or pairs
    /// under a window.
    pub kept: BufferArg,
    /// `[Hi, RULE_WORDS]`.
    pub rules: BufferArg,
    /// Spans of the probe rows, `[B, 4]`.
    pub spans: BufferArg,
    /// The index, whose gates are written.
    pub table: BufferArg,
    /// `[B * Hi, REPORT_WORDS]`, of which recall, density and reason are written.
    pub report: BufferArg,
}

/// Launches the stage.
#[allow(unsafe_code)]
pub fn launch(client: &Client, shape: &Shape, tensors: Tensors) {
    let cubes = shape.batch * shape.index_heads;
    let dim = CubeDim::new_1d(PROBES as u32);
    let count = cubecl::calculate_cube_count_elemwise(client, cubes * PROBES, dim);
    // SAFETY: cubes past the last leave; the others stay inside their head of each buffer.
    unsafe {
        check_heads::launch_unchecked(
            client,
            count,
            dim,
            tensors.lse,
            tensors.probe,
            tensors.kept,
            tensors.rules,
            tensors.spans,
            tensors.table,
            tensors.report,
            shape.batch as u32,
            shape.heads as u32,
            shape.index_heads as u32,
            shape.rows as u32,
            shape.tiles() as u32,
            shape.window().into(),
        );
    }
}
