//! The level that the sampled rows accept.

use cubecl::prelude::*;
use sparse_accelerate_contract::group::{LEVELS, MEASURES, Measure, WILD};

use super::{UNITS, measure::halve};

/// The verdict of the sampled rows of an index head.
#[derive(CubeType)]
pub(super) struct Level {
    /// The first level that is within the error; [`LEVELS`] for none.
    pub(super) number: u32,
    /// Its error, or that of the last.
    pub(super) error: f32,
    /// The share that it keeps of the mass outside the sinks.
    pub(super) recall: f32,
    /// Some score or output was not finite.
    pub(super) wild: bool,
}

#[cube]
impl Level {
    /// Errors are relative to the layer's mean head:
    /// `error^2 = (sum of |o_l - o|^2 over the index head's H heads) / H / (sum of |o|^2 over all Hq heads) Hq`.
    pub(super) fn of(
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
