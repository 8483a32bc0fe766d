//! The index of the chunk as a table, at the level that the sampled rows accept, and the report.
//!
//! A cube owns some neighbouring index rows of a head. First its units judge blocks, [`EACH`] neighbours at a time, and
//! leave a bit for each that is kept; then some units a row count the runs of set bits, and write them. Every row
//! ends with the tile itself. The tail of a report has what the row keeps.

// A comptime condition is an `if` of its own: it decides what is compiled.
#![allow(clippy::collapsible_if)]

use cubecl::prelude::*;
use sparse_accelerate_contract::{
    Choice, IndexRow, REPORT_WORDS, ROW_WORDS, Report, SPAN_WORDS, Why,
    group::{LEVELS, TAIL_WORDS},
    table::SPARSE,
};

use super::{MEAN_BLOCK, RANK_SHIFT, Tile, TileExpand, UNITS, aim, level::Level};
use crate::{
    select::fixed::{score, share},
    table::{HeadRules, Span, Window},
};

/// Blocks that a unit judges at once, whose bits are a word of shared memory.
const EACH: usize = 8;
/// Words of a cube, unless one row needs more.
const WORDS: usize = 2048;
/// Most rows of a cube.
const ROWS: usize = 16;
/// Cubes that are wanted before cubes take more rows.
const CUBES: usize = 512;

/// Compile-time parameters of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct IndexBlueprint {
    /// Words of bits of a cube.
    words: usize,
    /// Query heads that share a choice.
    heads: usize,
    /// Sampled rows of a sequence.
    samples: usize,
}

impl IndexBlueprint {
    /// Parameters for rows of `blocks` blocks.
    pub(super) fn new(blocks: usize, heads: usize, samples: usize) -> Self {
        Self {
            words: WORDS.max(blocks.div_ceil(EACH).next_power_of_two()),
            heads,
            samples,
        }
    }

    /// Rows of a cube, a power of two, for `rows` rows of `blocks` blocks in all.
    pub(super) fn rows(&self, rows: usize, blocks: usize) -> usize {
        let fit = self.words / blocks.div_ceil(EACH).max(1);
        let wanted = fit.min(rows / CUBES).clamp(1, ROWS);
        1 << wanted.ilog2()
    }

    /// Shared memory of a cube, beside that of [`Level`].
    pub(super) fn shared_bytes(&self) -> usize {
        (self.words + 3 * UNITS) * size_of::<u32>()
    }
}

/// Bits `from..to` of a word whose bits are the blocks from `first` on.
#[cube]
fn bits(from: u32, to: u32, first: u32) -> u32 {
    let low = min(max(from, first) - first, comptime!(EACH as u32));
    let high = min(max(to, first) - first, comptime!(EACH as u32));
    let below = (1u32 << low) - 1;
    ((1u32 << high) - 1) & !below
}

#[cube]
impl Tile {
    /// The candidates among the [`EACH`] blocks from `first` on that are kept, one bit each. `from` is where the row's shares
    /// begin; `threshold` is of bits of scores. [`Tile::keeps`] tells it of one block.
    fn kept(&self, shares: &[f32], from: usize, first: u32, threshold: u32) -> u32 {
        // All on their way before the first is judged.
        let mut loaded = Array::<f32>::new(EACH);
        #[unroll]
        for i in 0..EACH {
            let block = min(max(first + comptime!(i as u32), self.low), self.high - 1);
            loaded[i] = shares[from + block as usize];
        }
        let mut kept = 0u32;
        #[unroll]
        for i in 0..EACH {
            let keeps = score(u32::reinterpret(loaded[i])) >= threshold;
            kept |= u32::cast_from(keeps) << comptime!(i as u32);
        }
        kept |= bits(0u32, self.sinks, first);
        kept |= bits(self.local, u32::MAX, first);
        kept & bits(self.low, self.high, first)
    }

    /// Counts the pairs of the tile's rows and a kept block's keys: before the window hides any, those of all
    /// rows.
    fn pairs(&self, block: u32, window: &Window) -> u32 {
        let from = block * comptime!(MEAN_BLOCK as u32);
        let to = min(from + comptime!(MEAN_BLOCK as u32), self.end);
        let mut pairs = 0u32;
        if comptime!(window.some) {
            for row in 0..self.rows {
                let position = self.first + row;
                let first = max(from, window.first_key(position));
                let end = min(to, position + 1);
                pairs += max(end, first) - first;
            }
        } else {
            pairs = (to - from) * self.rows;
            // Of the tile's own keys, key `i` is not seen by the `i` rows before it.
            if to > self.first {
                let begin = max(from, self.first) - self.first;
                let end = to - self.first;
                pairs -= (begin + end - 1) * (end - begin) / 2;
            }
        }
        pairs
    }

    /// The same of the set bits of a word whose first block is `first`.
    fn pairs_of(&self, kept: u32, first: u32, window: &Window) -> u32 {
        let mut pairs = 0u32;
        let mut simple = kept;
        if comptime!(!window.some) {
            // All rows see all keys of a block before the tile.
            simple = kept & bits(0u32, self.first / comptime!(MEAN_BLOCK as u32), first);
            pairs = simple.count_ones() * comptime!(MEAN_BLOCK as u32) * self.rows;
            simple = kept & !simple;
        }
        while simple != 0 {
            pairs += self.pairs(first + simple.trailing_zeros(), window);
            simple &= simple - 1;
        }
        pairs
    }
}

/// `measured` as the launch before leaves it; `report` `[B, Hi, REPORT_WORDS + 2 tiles]`. `each` index rows a cube.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(super) fn index_rows(
    shares: &[f32],
    cuts: &[u32],
    measured: &[f32],
    spans: &[u32],
    rules: &[u32],
    table: &mut [u32],
    report: &mut [f32],
    batch: usize,
    index_heads: usize,
    tiles: usize,
    blocks: usize,
    gates_at: usize,
    ranges_at: usize,
    range_stride: usize,
    each: usize,
    window: ComptimeOption<u32>,
    #[comptime] bp: IndexBlueprint,
) {
    let cube = (CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) as usize;
    let cubes = tiles.div_ceil(each);
    if cube >= batch * index_heads * cubes {
        terminate!();
    }
    let (index, first_tile) = (cube / cubes, cube % cubes * each);
    let (b, index_head) = (index / index_heads, index % index_heads);
    let span = Span::of(spans, b as u32);
    let rule = HeadRules::of(index_head);
    let window = Window::of(&window);
    let unit = UNIT_POS as usize;
    let rows = min(each, tiles - first_tile);
    let words = blocks.div_ceil(EACH);

    let limit = rule.accepted(rules);
    let chosen = Level::of(measured, index, b, index_heads, limit, bp.heads, bp.samples);
    let level = chosen.number;

    let mut board = Shared::<[u32]>::new_slice(comptime!(bp.words));
    let together = min(each, 4);
    let sharing = comptime!(UNITS) / together;
    let mut at = unit / sharing;
    while at < rows {
        let tile = Tile::new(&span, &rule, rules, (first_tile + at) as u32, &window);
        let row = index * tiles + first_tile + at;
        let mut threshold = 0u32;
        if level < comptime!(LEVELS as u32) && tile.end <= span.dense_from {
            // No score has as high a rank.
            let none = comptime!(u32::MAX >> RANK_SHIFT);
            threshold = min(cuts[row * LEVELS + level as usize], none) << comptime!(RANK_SHIFT);
        }
        let mut word = tile.low as usize / EACH + unit % sharing;
        while word < (tile.high as usize).div_ceil(EACH) {
            let first = (word * EACH) as u32;
            board[at * words + word] = tile.kept(shares, row * blocks, first, threshold);
            word += sharing;
        }
        at += together;
    }
    sync_cube();

    // Some units a row: what lies before a unit's words is known once all have counted.
    let mut counts = Shared::<[u32]>::new_slice(comptime!(3 * UNITS));
    let sharing = min(comptime!(UNITS) / each, 16);
    let (at, place) = (unit / sharing, unit % sharing);
    let row = index * tiles + first_tile + at;
    let tile = Tile::new(&span, &rule, rules, (first_tile + at) as u32, &window);
    let begin = tile.low as usize / EACH;
    let end = (tile.high as usize).div_ceil(EACH);
    let own = (end - min(begin, end)).div_ceil(sharing);
    let from = begin + place * own;
    let mut until = min(from + own, end);
    if at >= rows {
        until = 0usize;
    }
    let mut before = 0u32;
    if from > begin && from < until {
        before = board[at * words + from - 1] >> comptime!(EACH as u32 - 1);
    }
    let mut runs = 0u32;
    let mut pairs = 0u32;
    let mut count = 0u32;
    let mut last = before;
    let mut word = from;
    while word < until {
        let kept = board[at * words + word];
        runs += (kept & !((kept << 1) | last)).count_ones();
        count += kept.count_ones();
        pairs += tile.pairs_of(kept, (word * EACH) as u32, &window);
        last = kept >> comptime!(EACH as u32 - 1);
        word += 1;
    }
    counts[unit] = runs;
    counts[comptime!(UNITS) + unit] = count;
    counts[comptime!(2 * UNITS) + unit] = pairs;
    sync_cube();

    let ranges = ranges_at + row * range_stride;
    let mut start_at = ranges;
    for other in 0..place {
        start_at += 2 * counts[unit - place + other] as usize;
    }
    // The run that reaches into this unit's words is the one before its first.
    let mut end_at = start_at + 1 - 2 * before as usize;
    let mut last = before;
    let mut word = from;
    while word < until {
        let kept = board[at * words + word];
        let first = (word * EACH) as u32;
        let shifted = (kept << 1) | last;
        let mut starts = kept & !shifted;
        while starts != 0 {
            table[start_at] = (first + starts.trailing_zeros()) * comptime!(MEAN_BLOCK as u32);
            start_at += 2;
            starts &= starts - 1;
        }
        let mut ends = !kept & shifted & bits(0u32, tile.high, first);
        while ends != 0 {
            table[end_at] = (first + ends.trailing_zeros()) * comptime!(MEAN_BLOCK as u32);
            end_at += 2;
            ends &= ends - 1;
        }
        last = kept >> comptime!(EACH as u32 - 1);
        word += 1;
    }
    if until == end && from < until {
        // The last run ends with the tile's keys.
        table[end_at] = tile.end;
    }
    let head = index * (comptime!(REPORT_WORDS) + tiles * TAIL_WORDS);
    if place == 0 && at < rows {
        let mut all = Array::<u32>::new(3usize);
        #[unroll]
        for i in 0..3usize {
            all[i] = 0u32;
            for other in 0..sharing {
                all[i] += counts[comptime!(i * UNITS) + unit + other];
            }
        }
        let entry = batch * SPAN_WORDS + row * ROW_WORDS;
        table[entry + IndexRow::RANGES_AT] = ranges as u32;
        table[entry + IndexRow::RANGES] = all[0];
        table[entry + IndexRow::COLUMNS_AT] = 0u32.runtime();
        table[entry + IndexRow::COLUMNS] = 0u32.runtime();
        let tail = head + comptime!(REPORT_WORDS) + (first_tile + at) * TAIL_WORDS;
        report[tail] = f32::cast_from(all[2]);
        report[tail + 1] = f32::cast_from(all[1]);
    }
    if first_tile == 0 {
        if UNIT_POS == 0 {
            table[gates_at + index] = comptime!(SPARSE).runtime();
            #[unroll]
            for i in 0..REPORT_WORDS {
                report[head + i] = f32::new(0.0);
            }
            let mut choice = f32::new(comptime!(Choice::GroupBlocks.number() as f32));
            let mut why = f32::new(comptime!(Why::MassHeld.number() as f32));
            let mut aimed = f32::new(1.0);
            if level == comptime!(LEVELS as u32) {
                choice = f32::new(comptime!(Choice::Dense.number() as f32));
                why = f32::new(comptime!(Why::ErrorAboveLimit.number() as f32));
                if chosen.wild {
                    why = f32::new(comptime!(Why::NotFinite.number() as f32));
                }
            } else {
                aimed = share(aim(&rule, rules, level));
                if level > 0 {
                    why = f32::new(comptime!(Why::MassRaised.number() as f32));
                }
            }
            report[head + Report::CHOICE] = choice;
            report[head + Report::WHY] = why;
            report[head + Report::PREDICTED_RECALL] = aimed;
            report[head + Report::RECALL] = chosen.recall;
            report[head + Report::ERROR] = chosen.error;
        }
        if index_head == 0 && (UNIT_POS as usize) < SPAN_WORDS {
            let word = b * SPAN_WORDS + UNIT_POS as usize;
            table[word] = spans[word];
        }
    }
}
