//! The two lookup tables and what is read from them: normal noise and rotating pairs.
//!
//! Entries come from the platform's f64 `cos`, `ln` and `sqrt`. Rounding to f32 hides a difference
//! in their last bit; the tests pin all entries.

use std::f64::consts::PI;
use std::sync::LazyLock;

use half::bf16;

use crate::hash::Stream;
use crate::shape::{HEAD_DIM, MAX_LEN};

/// Entries of each table.
const ENTRIES: u32 = 1 << 16;
/// Dimension pairs of the rotary part.
pub(crate) const PAIRS: usize = 48;

static TABLES: LazyLock<Tables> = LazyLock::new(Tables::new);

/// Cosines of a full turn, and radii of Box and Muller's transform.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) cos: Vec<f32>,
    pub(crate) rad: Vec<f32>,
}

impl Tables {
    pub(crate) fn get() -> &'static Self {
        &TABLES
    }

    fn new() -> Self {
        let all = || (0..ENTRIES).map(f64::from);
        let entries = f64::from(ENTRIES);
        Self {
            cos: all()
                .map(|t| (2.0 * PI * t / entries).cos() as f32)
                .collect(),
            rad: all()
                .map(|t| (-2.0 * ((t + 0.5) / entries).ln()).sqrt() as f32)
                .collect(),
        }
    }

    /// Cosine and sine of `phase` in units of 2^-32 turns.
    #[inline]
    pub(crate) fn turn(&self, phase: u32) -> (f32, f32) {
        let cos = |phase: u32| self.cos[(phase >> 16) as usize];
        (cos(phase), cos(phase.wrapping_sub(1 << 30)))
    }
}

/// Standard normal noise of one stream; at most 4.86 in magnitude.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Noise {
    stream: Stream,
    tables: &'static Tables,
}

impl Noise {
    pub(crate) fn new(seed: u32, stream: u32) -> Self {
        Self {
            stream: Stream::new(seed, stream),
            tables: Tables::get(),
        }
    }

    #[inline]
    pub(crate) fn normal(&self, counter: u32) -> f32 {
        let bits = self.stream.bits(counter);
        self.tables.rad[(bits >> 16) as usize] * self.tables.cos[(bits & 0xffff) as usize]
    }

    /// The first `out.len()` dimensions of a row.
    pub(crate) fn row(&self, head: usize, position: usize, out: &mut [bf16]) {
        let first = counter(head, position);
        for (d, out) in (0..).zip(out) {
            *out = bf16::from_f32(self.normal(first + d));
        }
    }
}

/// The counter of the first dimension of a row.
pub(crate) fn counter(head: usize, position: usize) -> u32 {
    ((head * MAX_LEN + position) * HEAD_DIM) as u32
}

/// Turns per token of each pair, in units of 2^-32: a quarter for the first, 1/4096 for the last.
pub(crate) fn turns_per_token() -> [u32; PAIRS] {
    std::array::from_fn(|m| {
        let slower = 1024_f64.powf(m as f64 / (PAIRS - 1) as f64);
        (2_f64.powi(32) / (4.0 * slower)).round() as u32
    })
}
