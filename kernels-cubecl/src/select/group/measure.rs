//! The change by each level in the outputs of the sampled rows.
//!
//! One cube owns a sampled row of a query head: it brings the splits of the keys together, class by class, and writes the
//! words of a [`Measure`]. Sums by halves.

use cubecl::prelude::*;
use sparse_accelerate_contract::group::{LEVELS, MEASURES, Measure, Split, WILD};

use super::{
    UNITS,
    rows::{CLASSES, OUTPUTS_AT, not_finite},
};
use crate::{attend::mma::exp2, table::Span};

/// Compile-time parameters of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct MeasureBlueprint {
    pub(super) split: Split,
    /// Packed rows of a cube that attended them.
    pub(super) rows: usize,
    /// Sampled rows of a sequence.
    pub(super) samples: usize,
    pub(super) head_dim: usize,
    /// The exponential is an instruction of inline PTX.
    pub(super) inline: bool,
}

/// Writes `measured` `[B, Hq, samples, MEASURES]`: zeros where a sequence has no rows to sample. `parts` as the launch before
/// leaves it; `probes` are the spans of the rows that are sampled.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(super) fn measure_rows(
    parts: &[f32],
    probes: &[u32],
    measured: &mut [f32],
    cubes: u32,
    kv_heads: u32,
    heads_per_kv: u32,
    #[comptime] bp: MeasureBlueprint,
) {
    let cube = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
    if cube >= cubes {
        terminate!();
    }
    let (slots, packs) = comptime!((bp.split.slots as u32, bp.split.packs as u32));
    let (splits, pitch) = comptime!((bp.split.splits, bp.split.pitch));
    let head = cube / comptime!(bp.samples as u32);
    let sample = cube % comptime!(bp.samples as u32);
    let (kv, of_kv) = (head / heads_per_kv, head % heads_per_kv);
    // The pack's first row, then this one among the tiles of the pack's rows.
    let pack = (kv * packs + of_kv / slots) as usize;
    let packed = (sample * slots + of_kv % slots) as usize;
    let tile_at = packed / comptime!(bp.rows);
    let row_tiles = comptime!(bp.split.rows / bp.rows);
    let first = (pack * comptime!(splits * row_tiles) + tile_at) * comptime!(bp.rows)
        + packed % comptime!(bp.rows);
    let stride = comptime!(bp.split.rows * pitch);
    let base = first * pitch;

    let mut highest = parts[base];
    for split in 1..splits {
        highest = max(highest, parts[base + split * stride]);
    }
    let mut sums = Array::<f32>::new(comptime!(CLASSES + 1));
    #[unroll]
    for i in 0..comptime!(CLASSES + 1) {
        sums[i] = f32::new(0.0);
    }
    for split in 0..splits {
        let at = base + split * stride;
        let weight = exp2(parts[at] - highest, bp.inline);
        #[unroll]
        for i in 0..comptime!(CLASSES + 1) {
            sums[i] = fma(weight, parts[at + 1 + i], sums[i]);
        }
    }
    let first_level = sums[0];
    let second_level = first_level + sums[1];
    let all = second_level + sums[2];
    let wild = all >= f32::new(WILD);

    let unit = UNIT_POS as usize;
    let mut board = Shared::<[f32]>::new_slice(comptime!((LEVELS + 1) * UNITS));
    let mut squares = Array::<f32>::new(comptime!(LEVELS + 1));
    #[unroll]
    for i in 0..comptime!(LEVELS + 1) {
        squares[i] = f32::new(0.0);
    }
    let mut column = unit;
    while column < comptime!(bp.head_dim) {
        let mut of_class = Array::<f32>::new(CLASSES);
        #[unroll]
        for class in 0..CLASSES {
            of_class[class] = f32::new(0.0);
        }
        for split in 0..splits {
            let at = base + split * stride;
            let weight = exp2(parts[at] - highest, bp.inline);
            #[unroll]
            for class in 0..CLASSES {
                let from = at + comptime!(OUTPUTS_AT + class * bp.head_dim) + column;
                of_class[class] = fma(weight, parts[from], of_class[class]);
            }
        }
        let first = of_class[0];
        let second = first + of_class[1];
        let out = (second + of_class[2]) / all;
        let off = over(first, first_level) - out;
        squares[0] += off * off;
        let off = over(second, second_level) - out;
        squares[1] += off * off;
        squares[2] += out * out;
        column += comptime!(UNITS);
    }
    #[unroll]
    for i in 0..comptime!(LEVELS + 1) {
        board[comptime!(i * UNITS) + unit] = squares[i];
    }
    halve(&mut board, comptime!(LEVELS + 1));
    if unit == 0 {
        let to = cube as usize * MEASURES;
        let mut errors = Array::<f32>::new(comptime!(LEVELS + 1));
        let mut bad = wild;
        #[unroll]
        for i in 0..comptime!(LEVELS + 1) {
            errors[i] = board[comptime!(i * UNITS)];
            bad = bad || not_finite(errors[i]);
        }
        if Span::of(probes, kv / kv_heads).query_len == 0 {
            #[unroll]
            for i in 0..MEASURES {
                measured[to + i] = f32::new(0.0);
            }
        } else {
            #[unroll]
            for i in 0..LEVELS {
                measured[to + comptime!(Measure::ERRORS + i)] =
                    select(bad, f32::new(WILD), errors[i]);
                let mut kept = first_level;
                if comptime!(i == 1) {
                    kept = second_level;
                }
                measured[to + comptime!(Measure::KEPT + i)] =
                    select(bad, f32::new(0.0), (kept - sums[CLASSES]) / all);
            }
            measured[to + Measure::OUTPUT] = select(bad, f32::new(0.0), errors[LEVELS]);
            measured[to + Measure::OUTSIDE] =
                select(bad, f32::new(0.0), (all - sums[CLASSES]) / all);
        }
    }
}

/// An output over its sum; nothing where all of it underflows beside the rest.
#[cube]
fn over(x: f32, sum: f32) -> f32 {
    let mut out = f32::new(0.0);
    if sum > f32::new(0.0) {
        out = x / sum;
    }
    out
}

/// Adds up each of the first `boards` parts of the board in its first entry.
#[cube]
pub(super) fn halve(board: &mut Shared<[f32]>, #[comptime] boards: usize) {
    let unit = UNIT_POS as usize;
    #[unroll]
    for stage in 0..comptime!(UNITS.ilog2() as usize) {
        let half = comptime!(UNITS >> (stage + 1));
        sync_cube();
        if unit < half {
            #[unroll]
            for i in 0..boards {
                let at = comptime!(i * UNITS) + unit;
                board[at] += board[at + half];
            }
        }
    }
    sync_cube();
}
