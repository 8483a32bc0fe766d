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
//! Under a window of visible keys a tile's causal tiles are those that some of its rows sees, its sinks
//! those that are still visible, its local window no longer than the visible one, and a column counts for
//! the rows that see it.
//!
//! Triangular and interval-slash meet the floor if `A_T` and `A_IS` do, in both groups of probes of every
//! query head; block-cluster and hybrid were cut to meet it. Dense wins where nothing that meets it costs
//! less, and where a probe's log-sum-exp is not finite. Where dense is not allowed, the cheapest that
//! meets the floor wins, or else the one with the largest recall.
//!
//! One cube per index head. Products are rounded once and cross shared memory before they are added, so
//! that no compiler contracts the two: costs have the same bits everywhere.

use cubecl::{client::Client, ir::AddressType, prelude::*, server::Handle};
use sparse_accelerate_contract::{
    PROBES, SPAN_WORDS,
    report::CHOICES,
    scratch::{COVERED_WORDS, SelectionWords},
    table::{DENSE, SPARSE},
};

use super::{
    Choice, ListLayout, Prices, RULE_WORDS, Report, Shape, Why,
    fixed::{INFINITY, ONE, exact, fixed, score, share},
    scan::UNITS,
};
use crate::{
    attend::QUERY_TILE,
    layout::{buffer, cubes},
    table::{HeadReport, HeadRules, Span, Window},
};

/// Numbers that the units of a cube find together: least `A_T`, least `A_IS`, causal tiles, blocks of either
/// variant, log-sum-exps that are not finite; under a window also tiles of sinks, and columns times the
/// index rows that see them.
const LOCAL: usize = 0;
const LISTED: usize = 1;
const CAUSAL: usize = 2;
const BLOCKS: usize = 3;
const BLOCKS_BESIDE: usize = 4;
const NOT_FINITE: usize = 5;
const SINKS: usize = 6;
const GATHERED: usize = 7;
/// How many there are.
const fn found_words(windowed: bool) -> usize {
    if windowed { 8 } else { 6 }
}
/// Products that costs are made of: a price times a count each.
const DENSE_TILES: usize = 0;
const ROWS: usize = 1;
const TRIANGULAR_TILES: usize = 2;
const INTERVAL_TILES: usize = 3;
const CLUSTER_TILES: usize = 4;
const HYBRID_TILES: usize = 5;
const COLUMNS: usize = 6;
const TERMS: usize = 7;
/// Key tokens of a tile.
const TILE: u32 = QUERY_TILE as u32;

/// Numbers of the choices, as kernels compare them.
const INTERVAL_SLASH: u32 = Choice::IntervalSlash.number();
const BLOCK_CLUSTER: u32 = Choice::BlockCluster.number();
const HYBRID: u32 = Choice::Hybrid.number();

/// Counts of what an index head may keep.
#[derive(CubeType)]
struct Counts {
    /// Index rows.
    rows: u32,
    /// Causal tiles.
    causal: u32,
    /// Columns times the index rows that see them through a window.
    gathered: u32,
    /// Columns and slashes.
    columns: u32,
    slashes: u32,
    /// Blocks beside sinks and window alone, and beside columns and slashes too.
    blocks: u32,
    blocks_beside: u32,
}

/// A choice and its reason, as numbers.
#[derive(CubeType)]
struct Decision {
    choice: u32,
    why: u32,
}

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
    window: ComptimeOption<u32>,
    #[comptime] heads_per_index: usize,
    #[comptime] layout: ListLayout,
) {
    let window = Window::of(&window);
    let found_words = comptime!(found_words(window.some));
    let index = CUBE_POS;
    if index >= indexes {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let rule = HeadRules::of(index % index_heads);
    let span = Span::of(spans, (index / index_heads) as u32);
    let rows = span.query_len.div_ceil(TILE);

    let found = Shared::<[Atomic<u32>]>::new_slice(found_words);
    let mut terms = Shared::<[f32]>::new_slice(TERMS);
    if unit < found_words {
        let mut value = 0u32;
        if unit <= LISTED {
            value = ONE.runtime();
        }
        found[unit].store(value);
    }
    sync_cube();
    find_recalls(&found, covered, index, heads_per_index);
    find_tiles(&found, &span, rows, rule.sink(rules), &window);
    find_blocks(&found, counts, index, indexes, query_blocks);
    find_faults(&found, lse, index, heads_per_index);
    if comptime!(window.some) {
        find_columns(&found, lists, index, &span, &window, layout);
    }
    sync_cube();

    let list = index * comptime!(layout.stride());
    let columns = lists[list + ListLayout::COLUMNS];
    let slashes = lists[list + ListLayout::SLASHES];
    let kept = Counts {
        rows,
        columns,
        slashes,
        blocks: found[BLOCKS].load(),
        blocks_beside: found[BLOCKS_BESIDE].load(),
        causal: found[CAUSAL].load(),
        gathered: if comptime!(window.some) {
            found[GATHERED].load()
        } else {
            0u32.runtime()
        },
    };
    let triangular = if comptime!(window.some) {
        let windows = min(rule.window(rules), window.keys).div_ceil(TILE);
        found[SINKS].load() + rows * (windows + 1)
    } else {
        let sinks = rule.sink(rules).div_ceil(TILE);
        let windows = rule.window(rules).div_ceil(TILE);
        rows * (sinks + windows + 1)
    };
    if unit < TERMS {
        terms[unit] = term(
            &kept,
            triangular,
            dense_tile,
            tile,
            column,
            row,
            comptime!(window.some),
        );
    }
    sync_cube();

    if unit == 0 {
        let floor = fixed(score(rule.floor_bits(rules)), 0u32);
        let finite = found[NOT_FINITE].load() == 0;
        let local = found[LOCAL].load();
        let listed = found[LISTED].load();
        // Blocks that were cut to a share of the largest one promise nothing.
        let mut reached = floor;
        if score(rule.alpha_bits(rules)) > 0 {
            reached = 0u32;
        }
        let mut recalls = Array::<u32>::new(CHOICES);
        recalls[0] = ONE.runtime();
        recalls[1] = local;
        recalls[2] = listed;
        recalls[3] = max(local, reached);
        recalls[4] = max(listed, reached);
        // Costs are not negative: their bits order as they do.
        let mut costs = Array::<u32>::new(CHOICES);
        costs[0] = u32::reinterpret(terms[DENSE_TILES]);
        costs[1] = u32::reinterpret(terms[ROWS] + terms[TRIANGULAR_TILES]);
        costs[2] = u32::reinterpret(terms[ROWS] + terms[INTERVAL_TILES] + terms[COLUMNS]);
        costs[3] = u32::reinterpret(terms[ROWS] + terms[CLUSTER_TILES]);
        costs[4] = u32::reinterpret(terms[ROWS] + terms[HYBRID_TILES] + terms[COLUMNS]);

        let decision = decide(&recalls, &mut costs, rule.allowed(rules), floor, finite);
        let own = HeadReport::of(index);
        write_report(
            &own, report, &decision, &recalls, &costs, &kept, local, listed,
        );
        let mut gate = SPARSE.runtime();
        if decision.choice == 0 {
            gate = DENSE.runtime();
        }
        gates[index] = gate;
    }
}

/// Finds the least of what sinks and window cover, and of what columns and slashes do with them.
#[cube]
fn find_recalls(
    found: &Shared<[Atomic<u32>]>,
    covered: &[u32],
    index: usize,
    #[comptime] heads_per_index: usize,
) {
    let words = comptime!(COVERED_WORDS * heads_per_index);
    let mut at = UNIT_POS as usize;
    while at < words {
        let has = fixed(score(covered[index * words + at]), 0u32);
        found[at % 2].fetch_min(has);
        at += UNITS;
    }
}

/// Counts the causal tiles; of those that a window shows also the tiles of `sink` sinks.
#[cube]
fn find_tiles(found: &Shared<[Atomic<u32>]>, span: &Span, rows: u32, sink: u32, window: &Window) {
    let mut tiles = 0u32;
    let mut at = UNIT_POS;
    if comptime!(window.some) {
        let mut sinks = 0u32;
        while at < rows {
            let end = span.offset() + min((at + 1) * TILE, span.query_len);
            let seen = window.first_key(span.offset() + at * TILE);
            tiles += (end - seen).div_ceil(TILE);
            sinks += (max(sink, seen) - seen).div_ceil(TILE);
            at += comptime!(UNITS as u32);
        }
        found[SINKS].fetch_add(sinks);
    } else {
        while at < rows {
            let end = span.offset() + min((at + 1) * TILE, span.query_len);
            tiles += end.div_ceil(TILE);
            at += comptime!(UNITS as u32);
        }
    }
    found[CAUSAL].fetch_add(tiles);
}

/// Adds up the index rows that see each of an index head's columns through a window.
#[cube]
fn find_columns(
    found: &Shared<[Atomic<u32>]>,
    lists: &[u32],
    index: usize,
    span: &Span,
    window: &Window,
    #[comptime] layout: ListLayout,
) {
    let list = index * comptime!(layout.stride());
    let from = list + ListLayout::COLUMNS_AT;
    let count = min(
        lists[list + ListLayout::COLUMNS],
        comptime!(layout.columns as u32),
    );
    let mut rows = 0u32;
    let mut at = UNIT_POS;
    while at < count {
        // The new rows that see it are `[first, end)`.
        let column = lists[from + at as usize];
        let first = max(column, span.offset()) - span.offset();
        let end = max(min(column + window.keys, span.kv_len), span.offset()) - span.offset();
        if first < end {
            rows += (end - 1) / TILE - first / TILE + 1;
        }
        at += comptime!(UNITS as u32);
    }
    found[GATHERED].fetch_add(rows);
}

/// Counts the kept blocks of either variant.
#[cube]
fn find_blocks(
    found: &Shared<[Atomic<u32>]>,
    counts: &[u32],
    index: usize,
    indexes: usize,
    query_blocks: usize,
) {
    let mut blocks = 0u32;
    let mut blocks_beside = 0u32;
    let mut at = UNIT_POS as usize;
    while at < query_blocks {
        blocks += counts[index * query_blocks + at];
        blocks_beside += counts[(indexes + index) * query_blocks + at];
        at += UNITS;
    }
    found[BLOCKS].fetch_add(blocks);
    found[BLOCKS_BESIDE].fetch_add(blocks_beside);
}

/// Counts the probes whose log-sum-exp is not finite.
#[cube]
fn find_faults(
    found: &Shared<[Atomic<u32>]>,
    lse: &[u32],
    index: usize,
    #[comptime] heads_per_index: usize,
) {
    let probes = comptime!(PROBES * heads_per_index);
    let mut at = UNIT_POS as usize;
    while at < probes {
        let bits = lse[index * probes + at];
        if bits & INFINITY == INFINITY {
            found[NOT_FINITE].fetch_add(1u32);
        }
        at += UNITS;
    }
}

/// Computes the term of this unit; `triangular` are the tiles of sinks and window.
#[cube]
fn term(
    kept: &Counts,
    triangular: u32,
    dense_tile: f32,
    tile: f32,
    column: f32,
    row: f32,
    #[comptime] windowed: bool,
) -> f32 {
    let unit = UNIT_POS as usize;
    let interval = triangular + kept.rows * kept.slashes * 3 / 2;
    let mut factor = tile;
    let mut count = triangular;
    if unit == DENSE_TILES {
        factor = dense_tile;
        count = kept.causal;
    } else if unit == ROWS {
        factor = row;
        count = kept.rows;
    } else if unit == INTERVAL_TILES {
        count = interval;
    } else if unit == CLUSTER_TILES {
        count = triangular + 4 * kept.blocks;
    } else if unit == HYBRID_TILES {
        count = interval + 4 * kept.blocks_beside;
    } else if unit == COLUMNS {
        factor = column * 0.015625f32;
        count = if comptime!(windowed) {
            kept.gathered
        } else {
            kept.rows * kept.columns
        };
    }
    if unit != ROWS && unit != COLUMNS {
        count = min(count, kept.causal);
    }
    factor * exact(count)
}

/// Decides by recalls and costs, both by choice. Costs of what is not allowed or does not meet the floor
/// become infinite.
#[cube]
fn decide(
    recalls: &Array<u32>,
    costs: &mut Array<u32>,
    allowed: u32,
    floor: u32,
    finite: bool,
) -> Decision {
    let all = comptime!((1u32 << CHOICES as u32) - 1);
    let dense_allowed = allowed & comptime!(Choice::Dense.bit()) != 0 || allowed & all == 0;
    // The cheapest that meets the floor, and the best of all that are allowed; 0 for none.
    let mut cheapest = 0u32;
    let mut cost = INFINITY.runtime();
    let mut best = 0u32;
    let mut recall = 0u32;
    let mut best_cost = INFINITY.runtime();
    #[unroll]
    for i in 1..CHOICES {
        let bit = comptime!(1u32 << i as u32);
        // Blocks were cut to meet it.
        let meets = comptime!(i as u32 >= BLOCK_CLUSTER) || recalls[i] >= floor;
        if allowed & bit != 0 {
            if meets && (cheapest == 0 || costs[i] < cost) {
                cheapest = i as u32;
                cost = costs[i];
            }
            if best == 0 || recalls[i] > recall || (recalls[i] == recall && costs[i] < best_cost) {
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
    let mut why = comptime!(Why::Cheapest.number()).runtime();
    if dense_allowed {
        if !finite {
            choice = 0u32;
            why = comptime!(Why::NotFinite.number()).runtime();
        } else if cheapest == 0 {
            why = comptime!(Why::NothingKeepsTheFloor.number()).runtime();
        } else if cost >= costs[0] {
            choice = 0u32;
            why = comptime!(Why::DenseIsCheapest.number()).runtime();
        }
    } else {
        if cheapest == 0 {
            choice = best;
            why = comptime!(Why::NothingKeepsTheFloor.number()).runtime();
        }
        if !finite {
            why = comptime!(Why::NotFinite.number()).runtime();
        }
        costs[0] = INFINITY.runtime();
    }
    Decision { choice, why }
}

/// Writes the report: recall and density are still to be measured; columns, slashes and blocks are those
/// that the choice keeps.
#[cube]
#[allow(clippy::too_many_arguments)]
fn write_report(
    own: &HeadReport,
    report: &mut [u32],
    decision: &Decision,
    recalls: &Array<u32>,
    costs: &Array<u32>,
    kept: &Counts,
    local: u32,
    listed: u32,
) {
    let choice = decision.choice;
    let mut columns = 0u32;
    let mut slashes = 0u32;
    if choice == INTERVAL_SLASH || choice == HYBRID {
        columns = kept.columns;
        slashes = kept.slashes;
    }
    let mut blocks = 0u32;
    if choice == BLOCK_CLUSTER {
        blocks = kept.blocks;
    } else if choice == HYBRID {
        blocks = kept.blocks_beside;
    }
    let mut predicted = recalls[0];
    #[unroll]
    for i in 1..CHOICES {
        if choice == i as u32 {
            predicted = recalls[i];
        }
    }
    let unmeasured = Report::UNMEASURED_BITS.runtime();
    own.put_bits(report, u32::reinterpret(exact(choice)), Report::CHOICE);
    own.put_bits(report, u32::reinterpret(exact(decision.why)), Report::WHY);
    let predicted = u32::reinterpret(share(predicted));
    own.put_bits(report, predicted, Report::PREDICTED_RECALL);
    own.put_bits(report, unmeasured, Report::RECALL);
    own.put_bits(report, unmeasured, Report::DENSITY);
    own.put_bits(report, u32::reinterpret(exact(columns)), Report::COLUMNS);
    own.put_bits(report, u32::reinterpret(exact(slashes)), Report::SLASHES);
    own.put_bits(report, u32::reinterpret(exact(blocks)), Report::BLOCKS);
    #[unroll]
    for i in 0..CHOICES {
        own.put_bits(report, costs[i], comptime!(Report::COSTS + i));
    }
    own.put_bits(report, u32::reinterpret(share(local)), Report::LOCAL);
    own.put_bits(report, u32::reinterpret(share(listed)), Report::LISTED);
    own.put_bits(report, 0u32.runtime(), Report::ERROR);
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
    prices: &Prices,
    buffers: &Buffers,
) {
    let lengths = SelectionWords::new(shape, lists);
    let indexes = shape.indexes();
    let (count, dim) = cubes(client, indexes, UNITS);
    // SAFETY: cubes past the last index head stop at once; the others stay inside their parts.
    unsafe {
        choose_patterns::launch_unchecked(
            client,
            count,
            dim,
            buffers.address,
            buffer(&buffers.covered, lengths.covered),
            buffer(&buffers.counts, lengths.counts),
            buffer(&buffers.lists, lengths.lists),
            buffer(&buffers.lse, lengths.probe_lse),
            buffer(&buffers.spans, SPAN_WORDS * shape.batch),
            buffer(&buffers.rules, RULE_WORDS * shape.index_heads),
            buffer(&buffers.report, lengths.report),
            buffer(&buffers.gates, indexes),
            indexes,
            shape.index_heads,
            shape.query_blocks(),
            prices.dense_tile,
            prices.tile,
            prices.column,
            prices.row,
            shape.window().into(),
            shape.heads_per_index(),
            *lists,
        );
    }
}
