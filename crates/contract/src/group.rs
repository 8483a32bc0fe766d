//! Numbers of the choice by the mass of a group: one choice of key blocks for the query heads that share an index
//! head, which is one query head, or all that share a KV head.
//!
//! | buffer | shape | holds |
//! | --- | --- | --- |
//! | means | `[B, Hk, blocks, 1, d]`, the keys' type | mean key of every block of [`MEAN_BLOCK`] keys |
//! | shares | `[B, Hi, tiles, blocks]`, f32 | estimated share of the group's mass, 0 to 1 |
//! | cuts | `[B, Hi, tiles, LEVELS]`, u32 | lowest rank of shares that a level keeps, `u32::MAX` for none |
//! | parts | see [`Split`], f32 | attention of sampled rows over a split of the keys, by the level that keeps them |
//! | measured | `[B, Hq, samples, MEASURES]`, f32 | what leaving keys out changes in a sampled row: see [`Measure`] |
//!
//! A *level* is a share of the mass outside the sinks that is aimed at. Rows of a report have a tail: see [`TAIL_WORDS`].

use crate::{
    report::REPORT_WORDS, scratch::packed_heads, shape::Shape, sizes::QUERY_TILE,
    table::TableLayout,
};

/// Keys of a block.
pub const MEAN_BLOCK: usize = QUERY_TILE;
/// Masses that are tried before a head is dense: the one that is aimed at, and half of what it leaves out kept
/// as well.
pub const LEVELS: usize = 2;
/// Bins of shares, a sixteenth of an octave each, at whose ends shares are cut. The last begins with the share 1.
pub const BINS: usize = 384;
/// Rank of the first bin: smaller shares, of at most 2^-24, are in it as well.
pub const BASE: u32 = 127 * 16 + 1 - BINS as u32;
/// Most sampled rows of a sequence.
pub const MOST_SAMPLES: usize = 16;
/// Query rows for each sampled one.
pub const SAMPLE_EVERY: usize = 512;
/// Words that are measured of a sampled row and query head.
pub const MEASURES: usize = LEVELS + 4;
/// Stands for squares of errors that are not finite: no finite ones of any use are as large.
pub const WILD: f32 = 1.0e30;
/// Most query heads that share a choice.
pub const MOST_HEADS: usize = 32;
/// Mean queries of a query tile and head. One of 64 rows blurs what single rows look for: of 1, 4, 8 and 16 parts the
/// loss of a trained model falls from one to the next at the same density, and the time of the estimate rises.
pub const PARTS: usize = 8;
/// Cubes that attend sampled rows between them, and most splits of the keys of a row.
const CUBES: usize = 256;
const MOST_SPLITS: usize = 64;
/// Most mean queries of a query tile.
const MOST_COLUMNS: usize = 64;
/// Words of a query tile in the tail of a report: its kept (query, key) pairs and its kept key blocks.
pub const TAIL_WORDS: usize = 2;

/// Counts the mean queries of a query tile and head, of equal parts of its rows: [`PARTS`], fewer where many heads
/// share a choice. A device whose shared memory is too small for them takes half as many, or fewer.
pub fn parts(shape: &Shape) -> usize {
    let most = MOST_COLUMNS / shape.heads_per_index();
    PARTS.min(1 << most.max(1).ilog2())
}

/// Counts key blocks.
pub fn blocks(shape: &Shape) -> usize {
    shape.keys.div_ceil(MEAN_BLOCK)
}

/// Counts the rows that are sampled of every sequence: one in [`SAMPLE_EVERY`], 4 to [`MOST_SAMPLES`], a power of
/// two.
pub fn samples(shape: &Shape) -> usize {
    let wanted = shape.rows / SAMPLE_EVERY;
    wanted.next_power_of_two().clamp(4, MOST_SAMPLES)
}

/// Gives sampled row `sample` of `samples` among `rows` rows: the middles of equal parts.
pub fn sampled_row(sample: usize, samples: usize, rows: usize) -> usize {
    (2 * sample + 1) * rows / (2 * samples)
}

/// The measurement of a sampled row and query head, by exact attention. `o` is the head's output, `o_l` that over what
/// level `l` keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measure;

impl Measure {
    /// First of [`LEVELS`] words: `|o_l - o|^2`; [`WILD`] where a score or an output is not finite.
    pub const ERRORS: usize = 0;
    /// Word of `|o|^2`.
    pub const OUTPUT: usize = LEVELS;
    /// First of [`LEVELS`] words: the share of the row's mass that the level keeps outside the sinks.
    pub const KEPT: usize = LEVELS + 1;
    /// Word of the share of its mass that lies outside the sinks.
    pub const OUTSIDE: usize = 2 * LEVELS + 1;
}

/// How the sampled rows of a sequence are attended: by cubes that take a part of the rows of some query heads of a KV head and
/// a split of the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Split {
    /// Query heads that stand side by side, a power of two.
    pub slots: usize,
    /// Packs of `slots` query heads that a KV head has.
    pub packs: usize,
    /// Packed rows of a pack, at least 16: row `r` is sample `r / slots` of head `r % slots`.
    pub rows: usize,
    /// Splits of the keys.
    pub splits: usize,
    /// Floats of a packed row: maximum of its exponents, sums of what the first level keeps, of what the second keeps
    /// beside it, of the others, of the sinks; 3 unused; the outputs of the three, `[3, d]`, not divided by the sums.
    pub pitch: usize,
}

impl Split {
    /// Splits the sampled rows of a choice.
    pub fn new(shape: &Shape) -> Self {
        let (slots, packs) = packed_heads(shape);
        let rows = (slots * samples(shape)).max(16);
        let cubes = shape.batch * shape.kv_heads * packs * rows.div_ceil(64);
        let wanted = (CUBES / cubes.max(1)).clamp(1, MOST_SPLITS);
        Self {
            slots,
            packs,
            rows,
            splits: (blocks(shape) / 8).clamp(1, wanted),
            pitch: (LEVELS + 1) * shape.head_dim + 8,
        }
    }

    /// Floats of all packed rows, `[B, Hk, packs, splits, rows, pitch]`.
    pub fn words(&self, shape: &Shape) -> usize {
        shape.batch * shape.kv_heads * self.packs * self.splits * self.rows * self.pitch
    }
}

/// Gives the rank of a share's bits: what cuts are compared with.
pub fn rank(share: u32) -> u32 {
    share >> 19
}

/// Gives the bin of a share's bits.
pub fn bin(share: u32) -> u32 {
    rank(share).saturating_sub(BASE)
}

/// Counts the words of an index head's report with its tail.
pub fn report_words(shape: &Shape) -> usize {
    REPORT_WORDS + TAIL_WORDS * shape.tiles()
}

/// Lays out the table: runs of a row are at most every other block, and one.
pub fn table(shape: &Shape) -> TableLayout {
    TableLayout::of_runs(shape, blocks(shape) / 2 + 1, 0)
}

/// The words of every buffer of the choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // as the module explains them
pub struct GroupWords {
    pub shares: usize,
    pub cuts: usize,
    pub parts: usize,
    pub measured: usize,
    pub report: usize,
    pub table: usize,
}

impl GroupWords {
    /// Counts the words of a choice.
    pub fn new(shape: &Shape) -> Self {
        let rows = shape.indexes() * shape.tiles();
        Self {
            shares: rows * blocks(shape),
            cuts: rows * LEVELS,
            parts: Split::new(shape).words(shape),
            measured: shape.batch * shape.heads * samples(shape) * MEASURES,
            report: shape.indexes() * report_words(shape),
            table: table(shape).words,
        }
    }

    /// Adds up all buffers but the report, which outlives the layer.
    pub fn total(&self) -> usize {
        self.shares + self.cuts + self.parts + self.measured + self.table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::visible::Visible;

    fn shape(rows: usize, keys: usize) -> Shape {
        Shape {
            batch: 1,
            heads: 8,
            kv_heads: 2,
            index_heads: 2,
            rows,
            keys,
            head_dim: 64,
            scale: 0.125,
            visible: Visible::Causal,
        }
    }

    #[test]
    fn samples_grow_with_the_chunk() {
        let count = |rows| samples(&shape(rows, rows));
        assert_eq!(
            [128, 2048, 2100, 4096, 8192, 1 << 17].map(count),
            [4, 4, 4, 8, 16, 16]
        );
        let rows: Vec<usize> = (0..4).map(|i| sampled_row(i, 4, 100)).collect();
        assert_eq!(rows, [12, 37, 62, 87]);
    }

    #[test]
    fn bins_grow_with_shares() {
        let of = |share: f32| bin(share.to_bits());
        assert_eq!(of(0.0), 0);
        assert_eq!(of(2f32.powi(-24)), 0);
        assert_eq!(of(1.07 * 2f32.powi(-24)), 0);
        assert_eq!(of(2f32.powi(-23)), 15);
        assert_eq!(of(1.0) as usize, BINS - 1);
        assert_eq!(of(0.5), of(1.0) - 16);
        // A cut at a bin's first rank keeps the bin.
        for share in [1.0f32, 0.3, 1e-4] {
            assert_eq!(bin(share.to_bits()) + BASE, rank(share.to_bits()));
        }
    }

    #[test]
    fn lengths_of_one_choice_by_hand() {
        let words = GroupWords::new(&shape(200, 1000));
        assert_eq!(words.shares, 2 * 4 * 16);
        assert_eq!(words.cuts, 2 * 4 * 2);
        // Four heads of a KV head and four samples: 16 rows, over two splits of 16 blocks.
        assert_eq!(words.parts, 2 * 2 * 16 * (3 * 64 + 8));
        assert_eq!(words.measured, 8 * 4 * 6);
        assert_eq!(words.report, 2 * (16 + 8));
        assert_eq!(words.table, 4 + 2 * 4 * 4 + 2 + 2 * 4 * 18);
    }
}
