//! A pattern for every index head: the cheapest of those that meet the recall floor, or dense.
//!
//! With `R` index rows of a sequence and sizes in 64 x 64 tiles, none of which more than the causal ones:
//!
//!   dense           dense_tile * causal tiles
//!   triangular      row * R + tile * R * (sink + window + 1)
//!   interval-slash  row * R + tile * (those + 1.5 * R * slashes) + column * R * columns / 64
//!   block-cluster   row * R + tile * (triangular's + 4 * blocks)
//!   hybrid          row * R + tile * (interval-slash's + 4 * blocks) + column * R * columns / 64
//!
//! Triangular and interval-slash meet the floor if `A_T` and `A_IS` do, in both groups of probes of every
//! query head; block-cluster and hybrid were cut to meet it. Dense wins where nothing that meets it costs
//! less, and where a probe's log-sum-exp is not finite. Where dense is not allowed, the cheapest that
//! meets the floor wins, or else the one with the largest recall.
//!
//! One cube per index head. Products are rounded once and cross shared memory before they are added, so
//! that no compiler contracts the two: costs have the same bits everywhere.

use cubecl::{client::Client, ir::AddressType, prelude::*, server::Handle};

use super::{
    ListLayout, PROBES, REPORT_WORDS, RULE_WORDS, Shape,
    fixed::{INFINITY, NAN, ONE, exact, fixed, score, share},
    scan::UNITS,
};
use crate::{
    attend::QUERY_TILE,
    layout::{buffer, cubes},
};

/// What work costs, in any one unit of time; finite and not negative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Costs {
    /// A tile of 64 x 64 of the dense kernel.
    pub dense_tile: f32,
    /// As much of the sparse kernel.
    pub tile: f32,
    /// 64 gathered columns of an index row.
    pub column: f32,
    /// An index row.
    pub row: f32,
}

/// Choices, dense first.
const CHOICES: usize = 5;
/// Products that costs are made of.
const TERMS: usize = 7;
/// Key tokens of a tile.
const TILE: u32 = QUERY_TILE as u32;

#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn choose_patterns(
    covered: &[u32],
    counts: &[u32],
    lists: &[u32],
    lse: &[u32],
    spans: &[u32],
    rules: &[u32],
    report: &mut [u32],
    gates: &mut [u32],
    indexes: usize,
    index_heads: usize,
    query_blocks: usize,
    dense_tile: f32,
    tile: f32,
    column: f32,
    row: f32,
    #[comptime] sharing: usize,
    #[comptime] layout: ListLayout,
) {
    let index = CUBE_POS;
    if index >= indexes {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let rule = index % index_heads * RULE_WORDS;
    let span = index / index_heads * 4;
    let query_len = spans[span];
    let kv_len = spans[span + 1];
    let rows = query_len.div_ceil(TILE);

    // Least A_T, least A_IS, causal tiles, blocks of both variants, values that are not finite.
    let found = Shared::<[Atomic<u32>]>::new_slice(6usize);
    let mut terms = Shared::<[f32]>::new_slice(TERMS);
    if unit < 6 {
        let mut value = 0u32;
        if unit < 2 {
            value = ONE.runtime();
        }
        found[unit].store(value);
    }
    sync_cube();
    let mut at = unit;
    while at < comptime!(4 * sharing) {
        let has = fixed(score(covered[index * comptime!(4 * sharing) + at]), 0u32);
        found[at % 2].fetch_min(has);
        at += UNITS;
    }
    let mut tiles = 0u32;
    let mut at = UNIT_POS;
    while at < rows {
        let end = kv_len - query_len + min((at + 1) * TILE, query_len);
        tiles += end.div_ceil(TILE);
        at += comptime!(UNITS as u32);
    }
    found[2].fetch_add(tiles);
    let mut blocks = 0u32;
    let mut blocks_beside = 0u32;
    let mut at = unit;
    while at < query_blocks {
        blocks += counts[index * query_blocks + at];
        blocks_beside += counts[(indexes + index) * query_blocks + at];
        at += UNITS;
    }
    found[3].fetch_add(blocks);
    found[4].fetch_add(blocks_beside);
    let mut at = unit;
    while at < comptime!(PROBES * sharing) {
        let bits = lse[index * comptime!(PROBES * sharing) + at];
        if bits & INFINITY == INFINITY {
            found[5].fetch_add(1u32);
        }
        at += UNITS;
    }
    sync_cube();

    let columns = lists[index * comptime!(layout.stride())];
    let slashes = lists[index * comptime!(layout.stride()) + 1];
    let blocks = found[3].load();
    let blocks_beside = found[4].load();
    let causal = found[2].load();
    let sinks = rules[rule + 1].div_ceil(TILE);
    let windows = rules[rule + 2].div_ceil(TILE);
    let triangular = rows * (sinks + windows + 1);
    let interval = triangular + rows * slashes * 3 / 2;
    if unit < TERMS {
        let mut factor = tile;
        let mut count = triangular;
        if unit == 0 {
            factor = dense_tile;
            count = causal;
        } else if unit == 1 {
            factor = row;
            count = rows;
        } else if unit == 3 {
            count = interval;
        } else if unit == 4 {
            count = triangular + 4 * blocks;
        } else if unit == 5 {
            count = interval + 4 * blocks_beside;
        } else if unit == 6 {
            factor = column * 0.015625f32;
            count = rows * columns;
        }
        if unit != 1 && unit != 6 {
            count = min(count, causal);
        }
        terms[unit] = factor * exact(count);
    }
    sync_cube();

    if unit == 0 {
        let allowed = rules[rule];
        let floor = fixed(score(rules[rule + 5]), 0u32);
        let finite = found[5].load() == 0;
        let local = found[0].load();
        let both = found[1].load();
        // Blocks that were cut to a share of the largest one promise nothing.
        let mut reached = floor;
        if score(rules[rule + 6]) > 0 {
            reached = 0u32;
        }
        let mut recalls = Array::<u32>::new(CHOICES);
        recalls[0] = ONE.runtime();
        recalls[1] = local;
        recalls[2] = both;
        recalls[3] = max(local, reached);
        recalls[4] = max(both, reached);
        // Costs are not negative: their bits order as they do.
        let mut costs = Array::<u32>::new(CHOICES);
        costs[0] = u32::reinterpret(terms[0]);
        costs[1] = u32::reinterpret(terms[1] + terms[2]);
        costs[2] = u32::reinterpret(terms[1] + terms[3] + terms[6]);
        costs[3] = u32::reinterpret(terms[1] + terms[4]);
        costs[4] = u32::reinterpret(terms[1] + terms[5] + terms[6]);

        let dense_allowed = allowed & 1 == 1 || allowed & 31 == 0;
        // The cheapest that meets the floor, and the best of all that are allowed; 0 for none.
        let mut cheapest = 0u32;
        let mut cost = INFINITY.runtime();
        let mut best = 0u32;
        let mut recall = 0u32;
        let mut best_cost = INFINITY.runtime();
        #[unroll]
        for i in 1..CHOICES {
            let bit = comptime!(1u32 << i as u32);
            let meets = comptime!(i > 2) || recalls[i] >= floor;
            if allowed & bit != 0 {
                if meets && (cheapest == 0 || costs[i] < cost) {
                    cheapest = i as u32;
                    cost = costs[i];
                }
                if best == 0
                    || recalls[i] > recall
                    || (recalls[i] == recall && costs[i] < best_cost)
                {
                    best = i as u32;
                    recall = recalls[i];
                    best_cost = costs[i];
                }
            }
            if allowed & bit == 0 || !meets {
                costs[i] = INFINITY.runtime();
            }
        }
        let mut choice = cheapest;
        let mut reason = 0u32;
        if dense_allowed {
            if !finite {
                choice = 0u32;
                reason = 3u32;
            } else if cheapest == 0 {
                reason = 2u32;
            } else if cost >= costs[0] {
                choice = 0u32;
                reason = 1u32;
            }
        } else {
            if cheapest == 0 {
                choice = best;
                reason = 2u32;
            }
            if !finite {
                reason = 3u32;
            }
            costs[0] = INFINITY.runtime();
        }

        let to = index * REPORT_WORDS;
        let listed = choice == 2 || choice == 4;
        let mut kept_columns = 0u32;
        let mut kept_slashes = 0u32;
        if listed {
            kept_columns = columns;
            kept_slashes = slashes;
        }
        let mut kept_blocks = 0u32;
        if choice == 3 {
            kept_blocks = blocks;
        } else if choice == 4 {
            kept_blocks = blocks_beside;
        }
        let mut predicted = recalls[0];
        #[unroll]
        for i in 1..CHOICES {
            if choice == i as u32 {
                predicted = recalls[i];
            }
        }
        report[to] = u32::reinterpret(exact(choice));
        report[to + 1] = u32::reinterpret(exact(reason));
        report[to + 2] = u32::reinterpret(share(predicted));
        report[to + 3] = NAN.runtime();
        report[to + 4] = NAN.runtime();
        report[to + 5] = u32::reinterpret(exact(kept_columns));
        report[to + 6] = u32::reinterpret(exact(kept_slashes));
        report[to + 7] = u32::reinterpret(exact(kept_blocks));
        #[unroll]
        for i in 0..CHOICES {
            report[to + 8 + i] = costs[i];
        }
        report[to + 13] = u32::reinterpret(share(local));
        report[to + 14] = u32::reinterpret(share(both));
        report[to + 15] = 0u32.runtime();
        let mut gate = 0u32;
        if choice == 0 {
            gate = 1u32;
        }
        gates[index] = gate;
    }
}

/// The buffers of a call; f32 and u32, contiguous.
#[allow(missing_debug_implementations)] // launch arguments have none
pub struct Buffers {
    /// `[B * Hq, 4]` f32, of `cut_columns`.
    pub covered: Handle,
    /// `[2, B * Hi, query blocks]`, of `cut_blocks`.
    pub counts: Handle,
    /// `[B * Hi]` rows of a [`ListLayout`], of `cut_columns`.
    pub lists: Handle,
    /// `[B, Hq, 128]` f32: log-sum-exp of the probes.
    pub lse: Handle,
    /// Begins with the spans `[B, 4]`.
    pub spans: Handle,
    /// `[Hi, 8]`.
    pub rules: Handle,
    /// Written: `[B * Hi, 16]` f32. What is measured later is NaN, the cost of what is not allowed or does
    /// not meet the floor infinite; columns, slashes and blocks are those that the choice keeps.
    pub report: Handle,
    /// Written: `[B * Hi]`, 1 where dense was chosen.
    pub gates: Handle,
    /// Index width.
    pub address: AddressType,
}

/// Launches the choice.
#[allow(unsafe_code)]
pub fn launch(
    client: &Client,
    shape: &Shape,
    lists: &ListLayout,
    costs: &Costs,
    buffers: &Buffers,
) {
    let indexes = shape.batch * shape.index_heads;
    let heads = shape.batch * shape.heads;
    let (count, dim) = cubes(client, indexes, UNITS);
    // SAFETY: cubes past the last index head stop at once; the others stay inside their parts.
    unsafe {
        choose_patterns::launch_unchecked(
            client,
            count,
            dim,
            buffers.address,
            buffer(&buffers.covered, heads * 4),
            buffer(&buffers.counts, 2 * indexes * shape.query_blocks()),
            buffer(&buffers.lists, indexes * lists.stride()),
            buffer(&buffers.lse, heads * PROBES),
            buffer(&buffers.spans, 4 * shape.batch),
            buffer(&buffers.rules, RULE_WORDS * shape.index_heads),
            buffer(&buffers.report, indexes * REPORT_WORDS),
            buffer(&buffers.gates, indexes),
            indexes,
            shape.index_heads,
            shape.query_blocks(),
            costs.dense_tile,
            costs.tile,
            costs.column,
            costs.row,
            shape.heads_per_index(),
            *lists,
        );
    }
}
