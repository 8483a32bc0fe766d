//! The index of the chunk as a table, at the level that the sampled rows accept, and the report.
//!
//! One cube per index row: units take neighbouring blocks, first they count the runs that begin there, then they
//! write them. Every row ends with the tile itself. The tail of a report has what the row keeps.

// A comptime condition is an `if` of its own: it decides what is compiled.
#![allow(clippy::collapsible_if)]

use cubecl::prelude::*;
use sparse_accelerate_contract::{
    Choice, IndexRow, REPORT_WORDS, ROW_WORDS, Report, SPAN_WORDS, Why,
    group::{LEVELS, MEASURES, Measure, TAIL_WORDS, WILD},
    table::SPARSE,
};

use super::{MEAN_BLOCK, Tile, UNITS, aim, measure::halve};
use crate::{
    select::{fixed::share, scan},
    table::{HeadRules, Span, Window},
};

/// The keys of one row.
#[derive(CubeType)]
struct Row {
    tile: Tile,
    /// All candidates are kept.
    dense: bool,
    cut: u32,
    share_at: usize,
}

#[cube]
impl Row {
    fn keeps(&self, shares: &[f32], block: u32) -> bool {
        let mut keeps = false.runtime();
        if self.tile.has(block) {
            keeps = self.dense;
            if !keeps {
                keeps = self
                    .tile
                    .keeps(block, shares[self.share_at + block as usize], self.cut);
            }
        }
        keeps
    }

    /// Counts the pairs of the tile's rows and a kept block's keys: before the window hides any, those of all
    /// rows.
    fn pairs(&self, block: u32, window: &Window) -> u32 {
        let from = block * comptime!(MEAN_BLOCK as u32);
        let to = min(from + comptime!(MEAN_BLOCK as u32), self.tile.end);
        let mut pairs = 0u32;
        if comptime!(window.some) {
            for row in 0..self.tile.rows {
                let position = self.tile.first + row;
                let first = max(from, window.first_key(position));
                let end = min(to, position + 1);
                pairs += max(end, first) - first;
            }
        } else {
            pairs = (to - from) * self.tile.rows;
            // Of the tile's own keys, key `i` is not seen by the `i` rows before it.
            if to > self.tile.first {
                let begin = max(from, self.tile.first) - self.tile.first;
                let end = to - self.tile.first;
                pairs -= (begin + end - 1) * (end - begin) / 2;
            }
        }
        pairs
    }
}

/// The verdict of the sampled rows of an index head.
#[derive(CubeType)]
struct Level {
    /// The first level that is within the error; [`LEVELS`] for none.
    number: u32,
    /// Its error, or that of the last.
    error: f32,
    /// The share that it keeps of the mass outside the sinks.
    recall: f32,
    /// Some score or output was not finite.
    wild: bool,
}

#[cube]
impl Level {
    /// Errors are relative to the layer's mean head:
    /// `error^2 = (sum of |o_l - o|^2 over the index head's H heads) / H / (sum of |o|^2 over all Hq heads) Hq`.
    fn of(
        measured: &[f32],
        index: usize,
        b: usize,
        index_heads: usize,
        limit: f32,
        #[comptime] heads: usize,
        #[comptime] samples: usize,
    ) -> Level {
        let unit = UNIT_POS as usize;
        // Sums over sampled rows: of outputs over those of all heads, of the others over the index head's.
        let mut board = Shared::<[f32]>::new_slice(comptime!(MEASURES * UNITS));
        #[unroll]
        for i in 0..MEASURES {
            board[comptime!(i * UNITS) + unit] = f32::new(0.0);
        }
        let own = comptime!(heads * samples);
        let mut row = unit;
        while row < own {
            let from = (index * own + row) * MEASURES;
            #[unroll]
            for i in 0..MEASURES {
                if comptime!(i != Measure::OUTPUT) {
                    board[comptime!(i * UNITS) + unit] += measured[from + i];
                }
            }
            row += comptime!(UNITS);
        }
        let all = index_heads * own;
        let mut row = unit;
        while row < all {
            board[comptime!(Measure::OUTPUT * UNITS) + unit] +=
                measured[(b * all + row) * MEASURES + Measure::OUTPUT];
            row += comptime!(UNITS);
        }
        halve(&mut board, MEASURES);
        let output = board[comptime!(Measure::OUTPUT * UNITS)];
        let outside = board[comptime!(Measure::OUTSIDE * UNITS)];
        let mut number = comptime!(LEVELS as u32).runtime();
        let mut error = f32::new(0.0);
        let mut recall = f32::new(1.0);
        let mut wild = false.runtime();
        #[unroll]
        for i in 0..LEVELS {
            if number == comptime!(LEVELS as u32) {
                let off = board[comptime!((Measure::ERRORS + i) * UNITS)];
                wild = off >= f32::new(WILD);
                let off = off * f32::cast_from(index_heads);
                if outside > f32::new(0.0) {
                    recall = board[comptime!((Measure::KEPT + i) * UNITS)] / outside;
                }
                error = f32::new(0.0);
                if output > f32::new(0.0) {
                    error = (off / output).sqrt();
                }
                if wild {
                    // Nothing was measured of what is not finite.
                    error = f32::new(0.0);
                    recall = f32::new(1.0);
                } else if error <= limit {
                    number = comptime!(i as u32).runtime();
                }
            }
        }
        Level {
            number,
            error,
            recall,
            wild,
        }
    }
}

/// `measured` as the launch before leaves it; `report` `[B, Hi, REPORT_WORDS + 2 tiles]`.
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
    window: ComptimeOption<u32>,
    #[comptime] heads: usize,
    #[comptime] samples: usize,
) {
    let row = (CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) as usize;
    if row >= batch * index_heads * tiles {
        terminate!();
    }
    let (index, at) = (row / tiles, row % tiles);
    let (b, index_head) = (index / index_heads, index % index_heads);
    let span = Span::of(spans, b as u32);
    let rule = HeadRules::of(index_head);
    let window = Window::of(&window);

    let limit = rule.accepted(rules);
    let chosen = Level::of(measured, index, b, index_heads, limit, heads, samples);
    let level = chosen.number;
    let tile = Tile::new(&span, &rule, rules, at as u32, &window);
    let dense = level == comptime!(LEVELS as u32) || tile.end > span.dense_from;
    let mut cut = 0u32;
    if !dense {
        cut = cuts[row * LEVELS + level as usize];
    }
    let own = Row {
        tile,
        dense,
        cut,
        share_at: row * blocks,
    };

    let mut starts = Shared::<[u32]>::new_slice(comptime!(2 * UNITS));
    let mut board = Shared::<[u32]>::new_slice(comptime!(2 * UNITS));
    let each = (own.tile.high - min(own.tile.low, own.tile.high)).div_ceil(comptime!(UNITS as u32));
    let from = own.tile.low + UNIT_POS * each;
    let until = min(from + each, own.tile.high);
    let mut before = false.runtime();
    if from > own.tile.low && from < own.tile.high {
        before = own.keeps(shares, from - 1);
    }
    let mut runs = 0u32;
    let mut pairs = 0u32;
    let mut count = 0u32;
    let mut last = before;
    let mut block = from;
    while block < until {
        let keeps = own.keeps(shares, block);
        if keeps {
            count += 1;
            pairs += own.pairs(block, &window);
            if !last {
                runs += 1;
            }
        }
        last = keeps;
        block += 1;
    }
    let runs_before = scan::exclusive_sum(runs, &mut starts, UNITS);
    let ranges = ranges_at + row * range_stride;
    // The run that reaches into this unit's blocks is the one before its first.
    let mut place = ranges + 2 * runs_before as usize;
    let mut last = before;
    let mut block = from;
    while block < until {
        let keeps = own.keeps(shares, block);
        if keeps && !last {
            table[place] = block * comptime!(MEAN_BLOCK as u32);
            place += 2;
        }
        last = keeps;
        block += 1;
        if keeps {
            let mut ends = block == own.tile.high;
            if !ends {
                ends = !own.keeps(shares, block);
            }
            if ends {
                table[place - 1] = min(block * comptime!(MEAN_BLOCK as u32), own.tile.end);
            }
        }
    }

    let _ = scan::exclusive_sum(pairs, &mut board, UNITS);
    let all_pairs = scan::total(&mut board, UNITS);
    let _ = scan::exclusive_sum(count, &mut board, UNITS);
    let all_blocks = scan::total(&mut board, UNITS);
    let words = comptime!(REPORT_WORDS) + tiles * TAIL_WORDS;
    if UNIT_POS == 0 {
        let entry = batch * SPAN_WORDS + row * ROW_WORDS;
        table[entry + IndexRow::RANGES_AT] = ranges as u32;
        table[entry + IndexRow::RANGES] = scan::total(&mut starts, UNITS);
        table[entry + IndexRow::COLUMNS_AT] = 0u32.runtime();
        table[entry + IndexRow::COLUMNS] = 0u32.runtime();
        let tail = index * words + comptime!(REPORT_WORDS) + at * TAIL_WORDS;
        report[tail] = f32::cast_from(all_pairs);
        report[tail + 1] = f32::cast_from(all_blocks);
    }
    if at == 0 {
        if UNIT_POS == 0 {
            table[gates_at + index] = comptime!(SPARSE).runtime();
            let head = index * words;
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
