//! Shares of the exact mass of the sampled rows outside the sinks that each level keeps.
//!
//! ```text
//! p_h(r, J) = 2^part_h(r, J) / sum_I 2^part_h(r, I)
//! kept[r, level] = sum_h sum_{J kept, no sink} p_h(r, J) / sum_h sum_{J no sink} p_h(r, J)
//! ```
//!
//! One cube owns a sampled row of an index head; a unit takes every 128th block. Sums by halves.

use cubecl::prelude::*;
use sparse_accelerate_contract::{
    QUERY_TILE,
    group::{LEVELS, MEAN_BLOCK},
};

use super::{Tile, UNITS};
use crate::{
    attend::mma::exp2,
    select::{
        probe::{WILD, sampled_row},
        product::NOTHING,
    },
    table::{HeadRules, Span, Window},
};

/// Sums of a head: all of a row's mass, what lies outside the sinks, what each level keeps of that.
const SUMS: usize = 2 + LEVELS;

/// Compile-time parameters of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct MeasureBlueprint {
    /// Query heads that share a choice.
    pub(super) heads: usize,
    /// Sampled rows of a sequence.
    pub(super) samples: usize,
    /// The exponential is an instruction of inline PTX.
    pub(super) inline: bool,
}

/// Writes `kept` `[B, Hi, samples, LEVELS]`; 0 where a score is not finite, 1 where a sequence has no rows to sample and where
/// a row has no mass outside the sinks. `probes` are the spans of the rows that are sampled.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(super) fn measure_rows(
    parts: &[f32],
    shares: &[f32],
    cuts: &[u32],
    spans: &[u32],
    probes: &[u32],
    rules: &[u32],
    kept: &mut [f32],
    cubes: u32,
    index_heads: u32,
    tiles: u32,
    blocks: u32,
    window: ComptimeOption<u32>,
    #[comptime] bp: MeasureBlueprint,
) {
    let samples = comptime!(bp.samples);
    let cube = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
    if cube >= cubes {
        terminate!();
    }
    let flat = cube / comptime!(samples as u32);
    let sample = cube % comptime!(samples as u32);
    let (b, index_head) = (flat / index_heads, flat % index_heads);
    let span = Span::of(spans, b);
    let rule = HeadRules::of(index_head as usize);
    let window = Window::of(&window);
    let probed = Span::of(probes, b).query_len;
    let row = sampled_row(sample, probed, samples);
    let position = span.offset() + row;
    let tile_at = row / comptime!(QUERY_TILE as u32);
    let tile = Tile::new(&span, &rule, rules, tile_at, &window);
    let size = comptime!(MEAN_BLOCK as u32);
    let (low, high) = (window.first_key(position) / size, position / size + 1);
    let row_at = (flat * tiles + tile_at) as usize;
    let share_at = row_at * blocks as usize;
    let cut = cuts[row_at * LEVELS];
    let raised = cuts[row_at * LEVELS + 1];

    // All, what lies outside the sinks, what each level keeps of that.
    let mut board = Shared::<[f32]>::new_slice(comptime!(SUMS * UNITS));
    let unit = UNIT_POS as usize;
    let mut totals = Array::<f32>::new(SUMS);
    #[unroll]
    for i in 0..SUMS {
        totals[i] = f32::new(0.0);
    }
    let mut wild = false.runtime();
    for h in 0..comptime!(bp.heads as u32) {
        let head = flat * comptime!(bp.heads as u32) + h;
        let at = (head * comptime!(samples as u32) + sample) as usize * blocks as usize;
        let mut highest = f32::new(NOTHING);
        let mut block = low + UNIT_POS;
        while block < high {
            highest = max(highest, parts[at + block as usize]);
            block += comptime!(UNITS as u32);
        }
        board[unit] = highest;
        halve(&mut board, 1usize, true);
        let shift = board[0];
        sync_cube();
        let mut all = f32::new(0.0);
        let mut outside = f32::new(0.0);
        let mut first = f32::new(0.0);
        let mut second = f32::new(0.0);
        let mut block = low + UNIT_POS;
        while block < high {
            let mass = exp2(parts[at + block as usize] - shift, comptime!(bp.inline));
            let share = shares[share_at + block as usize];
            all += mass;
            if block >= tile.sinks {
                outside += mass;
                if tile.keeps(block, share, cut) {
                    first += mass;
                }
                if tile.keeps(block, share, raised) {
                    second += mass;
                }
            }
            block += comptime!(UNITS as u32);
        }
        board[unit] = all;
        board[UNITS + unit] = outside;
        board[comptime!(2 * UNITS) + unit] = first;
        board[comptime!(3 * UNITS) + unit] = second;
        halve(&mut board, SUMS, false);
        wild = wild || shift >= f32::new(WILD);
        #[unroll]
        for i in 1..SUMS {
            totals[i] += board[comptime!(i * UNITS)] / board[0];
        }
        sync_cube();
    }
    if unit < LEVELS {
        let mut of_level = totals[2];
        if unit == 1 {
            of_level = totals[3];
        }
        let mut share = f32::new(1.0);
        if totals[1] > f32::new(0.0) {
            share = of_level / totals[1];
        }
        if wild {
            share = f32::new(0.0);
        }
        if probed == 0 {
            share = f32::new(1.0);
        }
        kept[cube as usize * LEVELS + unit] = share;
    }
}

/// Brings each of the first `boards` parts of the board together in its first entry.
#[cube]
fn halve(board: &mut Shared<[f32]>, #[comptime] boards: usize, #[comptime] maximum: bool) {
    let unit = UNIT_POS as usize;
    #[unroll]
    for stage in 0..comptime!(UNITS.ilog2() as usize) {
        let half = comptime!(UNITS >> (stage + 1));
        sync_cube();
        if unit < half {
            #[unroll]
            for i in 0..boards {
                let at = comptime!(i * UNITS) + unit;
                if comptime!(maximum) {
                    board[at] = max(board[at], board[at + half]);
                } else {
                    board[at] += board[at + half];
                }
            }
        }
    }
    sync_cube();
}
