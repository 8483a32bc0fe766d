//! The split-K tier: few query rows, many keys, which many cubes split.
//!
//! Decoding reads every key and value once and computes little, so the tier is built around loads:
//! 16 bytes per unit, several in flight, no shared memory between them and their use. `kernel` writes
//! a partial output per split, `merge` weighs the splits by their log-sum-exp.

mod combine;
mod exchange;
mod kernel;
mod launch;
mod load;
mod merge;
mod plan;

pub(super) use launch::launch;
pub(super) use plan::{MAX_ROWS, blueprint, splits};

use crate::{int8::PER_WORD, table::Walk};

/// Head elements of a unit.
const PER_UNIT: usize = 8;
/// Fewest keys worth a split of their own.
const SPLIT_KEYS: usize = 256;
/// Most units of a merging cube.
const MERGE_UNITS: usize = 256;
/// Score of a key that is not seen; finite, since not every device has infinities.
const UNSEEN: f32 = -1.0e30;
/// Running maximum before the first key: below every score, so far above [`UNSEEN`] that the weight
/// of an unseen key is 0.
const FLOOR: f32 = -1.0e28;

/// The compile-time choices of the kernels of this tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SplitKBlueprint {
    /// Head dimension, a multiple of 8.
    pub head_dim: usize,
    /// Elements per load: 16 bytes, or what the device takes; of bytes, all of a unit.
    pub width: usize,
    /// Loads are words of two 16-bit elements.
    pub words: bool,
    /// Elements are bf16.
    pub bfloat: bool,
    /// Keys and values are bytes: loads are words of four, scores and probabilities take the scales.
    pub int8: bool,
    /// Units that share one key: a power of two, at least `head_dim / 8`.
    pub lanes: usize,
    /// Sets of `lanes` units that walk different keys.
    pub sets: usize,
    /// Packed query rows of a unit: 1, 2 or 4.
    pub rows: usize,
    /// Units along packed query rows: all walk the same keys.
    pub chunks: usize,
    /// Keys of a unit per step, a power of two.
    pub keys: usize,
    /// Dot products are summed by plane shuffles; otherwise through shared memory.
    pub planes: bool,
    /// Ranges and columns come from the table; otherwise the range `[0, p]` is implicit.
    pub indexed: bool,
    /// The index may have columns.
    pub columns: bool,
    /// Triangular's element rule applies.
    pub banded: bool,
    /// One query row per sequence: every key of a range is seen by all packed rows.
    pub single: bool,
    /// Rows see a window of keys.
    pub windowed: bool,
}

impl SplitKBlueprint {
    fn walk(&self) -> Walk {
        Walk {
            keys: self.step(),
            indexed: self.indexed,
            columns: self.indexed,
            banded: self.banded,
            windowed: self.windowed,
        }
    }

    /// Units of a cube.
    pub fn units(&self) -> usize {
        self.lanes * self.sets * self.chunks
    }

    /// Keys of a cube per step.
    pub fn step(&self) -> usize {
        self.sets * self.keys
    }

    /// Scores of a unit per step, before they are summed over lanes.
    fn scores(&self) -> usize {
        self.rows * self.keys
    }

    /// Scores of a lane after they are summed over lanes and dealt out.
    fn owned(&self) -> usize {
        (self.scores() / self.lanes).max(1)
    }

    /// Lanes that own the scores of one row.
    fn lanes_per_row(&self) -> usize {
        self.lanes / self.rows
    }

    /// Lanes that own the same score.
    fn replicas(&self) -> usize {
        (self.lanes / self.scores()).max(1)
    }

    /// Elements, or words of them, of a load.
    fn stored_width(&self) -> usize {
        match (self.int8, self.words) {
            (true, _) => self.width / PER_WORD,
            (false, true) => self.width / 2,
            (false, false) => self.width,
        }
    }

    /// Units of a tensor's strides that a load takes. Words of 16-bit elements are a view of a tensor whose strides
    /// count elements; words of bytes are the elements of theirs.
    fn stride_width(&self) -> usize {
        match self.int8 {
            true => self.width / PER_WORD,
            false => self.width,
        }
    }

    /// Scales of a unit per step.
    fn scales(&self) -> usize {
        if self.int8 { self.keys } else { 1 }
    }

    /// Vectors of a unit.
    fn vectors(&self) -> usize {
        PER_UNIT / self.width
    }

    /// Floats of the buffer through which units add up scores, later the outputs of sets.
    fn board(&self) -> usize {
        let scores = if self.planes { 0 } else { self.scores() };
        self.units() * scores.max(PER_UNIT)
    }

    /// Floats of the buffer through which lanes deal out probabilities and factors.
    fn dealt(&self) -> usize {
        match self.planes {
            true => 1,
            false => self.sets * self.chunks * (self.scores() + self.rows),
        }
    }

    /// Floats of one packed row in the scratch: its output, maximum, sum, number of splits, unused.
    pub(super) fn pitch(&self) -> usize {
        self.head_dim + 4
    }

    /// Units of the merge along splits.
    fn slots(&self) -> usize {
        (MERGE_UNITS / (self.head_dim / 4)).min(8)
    }

    /// Shared memory of a cube.
    pub fn shared_bytes(&self) -> usize {
        (self.board() + 2 * self.units() + self.dealt()) * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blueprint(width: usize, words: bool, int8: bool) -> SplitKBlueprint {
        SplitKBlueprint {
            head_dim: 128,
            width,
            words,
            bfloat: false,
            int8,
            lanes: 16,
            sets: 4,
            rows: 1,
            chunks: 1,
            keys: 8,
            planes: true,
            indexed: false,
            columns: false,
            banded: false,
            single: true,
            windowed: false,
        }
    }

    /// A row of 128 elements is 16 loads, in whatever its tensor counts its strides.
    #[test]
    fn a_row_is_as_many_loads_as_its_strides_say() {
        for (blueprint, stride) in [
            (blueprint(4, false, false), 128),
            // Words of two elements, over a tensor of elements.
            (blueprint(8, true, false), 128),
            // Words of four bytes, over a tensor of words.
            (blueprint(8, false, true), 128 / PER_WORD),
        ] {
            let loads = blueprint.head_dim / blueprint.width;
            assert_eq!(stride / blueprint.stride_width(), loads, "{blueprint:?}");
        }
        let widths = [(4, false, false), (8, true, false), (8, false, true)]
            .map(|(width, words, int8)| blueprint(width, words, int8).stored_width());
        assert_eq!(widths, [4, 4, 2]);
    }
}
