//! The report of an index head: what it chose, why, and what that keeps.
//!
//! Reports are `f32` words, one row of [`REPORT_WORDS`] per sequence and index head. The choice writes all of
//! them; the check writes recall and density, and a new reason where it turned the head dense.

use std::fmt;

#[cfg(feature = "serde")]
use serde::{Deserialize, Serialize};

/// Words of an index head's report.
pub const REPORT_WORDS: usize = 16;
/// Choices that a selection has.
pub const CHOICES: usize = Choice::ALL.len();

/// The pattern that a head chose. Its number is what kernels write; numbers never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[repr(u32)]
#[non_exhaustive]
pub enum Choice {
    /// Every key.
    Dense = 0,
    /// Sinks and window.
    Triangular = 1,
    /// With columns and slashes.
    IntervalSlash = 2,
    /// With blocks.
    BlockCluster = 3,
    /// With columns, slashes and blocks.
    Hybrid = 4,
    /// The index of a selector outside. It has no price, and no kernel writes it.
    Index = 5,
    /// With the blocks that hold most of the group's mass. It has no price: it competes with no other.
    GroupBlocks = 6,
}

impl Choice {
    /// Every choice that has a price, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Dense,
        Self::Triangular,
        Self::IntervalSlash,
        Self::BlockCluster,
        Self::Hybrid,
    ];

    /// Gives the number that kernels write.
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// Finds the choice of a number that a kernel writes.
    pub fn from_number(number: u32) -> Option<Self> {
        if number == Self::GroupBlocks.number() {
            return Some(Self::GroupBlocks);
        }
        Self::ALL.get(number as usize).copied()
    }

    /// Gives the bit that allows the choice in [`crate::Rules::allowed`].
    pub const fn bit(self) -> u32 {
        1 << self.number()
    }

    /// Tells whether the choice keeps columns and slashes.
    pub const fn has_lists(self) -> bool {
        matches!(self, Self::IntervalSlash | Self::Hybrid)
    }

    /// Tells whether the choice keeps key blocks.
    pub const fn has_blocks(self) -> bool {
        matches!(self, Self::BlockCluster | Self::Hybrid | Self::GroupBlocks)
    }

    /// Gives the name, as in pattern files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Triangular => "triangular",
            Self::IntervalSlash => "interval-slash",
            Self::BlockCluster => "block-cluster",
            Self::Hybrid => "hybrid",
            Self::Index => "index",
            Self::GroupBlocks => "group-blocks",
        }
    }
}

/// The reason of a choice. Its number is what kernels write; numbers never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[repr(u32)]
#[non_exhaustive]
pub enum Why {
    /// The cheapest that keeps the recall floor.
    Cheapest = 0,
    /// Dense is the cheapest.
    DenseIsCheapest = 1,
    /// Nothing that is allowed keeps the floor.
    NothingKeepsTheFloor = 2,
    /// Scores or outputs of a probe row or a sampled one are not finite.
    NotFinite = 3,
    /// The measured recall was below the floor: computed again, densely.
    MeasuredBelowFloor = 4,
    /// The layer is one of the first, which are dense by setting. No kernel writes it.
    DenseLayer = 5,
    /// A selector outside chose for all heads. No kernel writes it.
    IndexSelector = 6,
    /// The mass that was aimed at keeps the error of the sampled rows.
    MassHeld = 7,
    /// It did not, and more was kept.
    MassRaised = 8,
    /// Neither did that: every key is seen.
    ErrorAboveLimit = 9,
}

impl Why {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Cheapest,
        Self::DenseIsCheapest,
        Self::NothingKeepsTheFloor,
        Self::NotFinite,
        Self::MeasuredBelowFloor,
        Self::DenseLayer,
        Self::IndexSelector,
        Self::MassHeld,
        Self::MassRaised,
        Self::ErrorAboveLimit,
    ];

    /// Gives the number that kernels write.
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// Finds the reason of a number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(number as usize).copied()
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cheapest => "cheapest that keeps the recall floor",
            Self::DenseIsCheapest => "dense is cheapest",
            Self::NothingKeepsTheFloor => "nothing else keeps the recall floor",
            Self::NotFinite => "scores are not finite",
            Self::MeasuredBelowFloor => "measured recall was below the floor",
            Self::DenseLayer => "one of the first layers, dense by setting",
            Self::IndexSelector => "chosen by a selector of the caller",
            Self::MassHeld => "outputs of sampled rows are within the error",
            Self::MassRaised => {
                "outputs of sampled rows were not within the error, so more was kept"
            }
            Self::ErrorAboveLimit => "outputs of sampled rows were not within the error: every key",
        })
    }
}

/// The report of one index head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    /// The pattern.
    pub choice: Choice,
    /// The reason.
    pub why: Why,
    /// Least share of the softmax mass, over the head's query heads, expected on the kept keys; 0 to 1. Of a choice of
    /// blocks by their mass, the share outside the sinks that is aimed at.
    pub predicted_recall: f32,
    /// The same, as measured on the probe rows; [`Report::UNMEASURED`] until then.
    pub recall: f32,
    /// Kept causal (query, key) pairs over all; [`Report::UNMEASURED`] until then.
    pub density: f32,
    /// Columns kept.
    pub columns: u32,
    /// Slash buckets kept.
    pub slashes: u32,
    /// Key blocks kept, over all query blocks.
    pub blocks: u32,
    /// Prices of [`Choice::ALL`]; infinite for what is not allowed or does not keep the floor.
    pub costs: [f32; CHOICES],
    /// Expected recall of sinks and window alone, 0 to 1.
    pub local: f32,
    /// Expected recall of sinks, window, columns and slashes, 0 to 1.
    pub listed: f32,
    /// Of a choice of blocks by their mass: the error of the head's output on sampled rows, over that of the layer's mean
    /// head; of a head that was above the limit, what it had before it was made dense. 0 for the others.
    pub error: f32,
}

/// A word of a report that no selection writes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UnknownWord {
    /// The word's place in the report.
    pub word: usize,
    /// Its value.
    pub value: f32,
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { word, value } = self;
        write!(f, "word {word} is {value}, which no selection writes")
    }
}

impl std::error::Error for UnknownWord {}

impl Report {
    /// Word of the choice's number.
    pub const CHOICE: usize = 0;
    /// Word of the reason's number.
    pub const WHY: usize = 1;
    /// Word of [`Report::predicted_recall`].
    pub const PREDICTED_RECALL: usize = 2;
    /// Word of [`Report::recall`].
    pub const RECALL: usize = 3;
    /// Word of [`Report::density`].
    pub const DENSITY: usize = 4;
    /// Word of [`Report::columns`].
    pub const COLUMNS: usize = 5;
    /// Word of [`Report::slashes`].
    pub const SLASHES: usize = 6;
    /// Word of [`Report::blocks`].
    pub const BLOCKS: usize = 7;
    /// First word of [`Report::costs`].
    pub const COSTS: usize = 8;
    /// Word of [`Report::local`].
    pub const LOCAL: usize = 13;
    /// Word of [`Report::listed`].
    pub const LISTED: usize = 14;
    /// Word of [`Report::error`].
    pub const ERROR: usize = 15;

    /// Bits of [`Report::UNMEASURED`].
    pub const UNMEASURED_BITS: u32 = 0x7fc0_0000;
    /// Value of recall and density before they are measured: a NaN.
    pub const UNMEASURED: f32 = f32::from_bits(Self::UNMEASURED_BITS);

    /// Gives the words of the report.
    pub fn words(&self) -> [f32; REPORT_WORDS] {
        let mut words = [0.0; REPORT_WORDS];
        words[Self::CHOICE] = exact(self.choice.number());
        words[Self::WHY] = exact(self.why.number());
        words[Self::PREDICTED_RECALL] = self.predicted_recall;
        words[Self::RECALL] = self.recall;
        words[Self::DENSITY] = self.density;
        words[Self::COLUMNS] = exact(self.columns);
        words[Self::SLASHES] = exact(self.slashes);
        words[Self::BLOCKS] = exact(self.blocks);
        words[Self::COSTS..Self::COSTS + CHOICES].copy_from_slice(&self.costs);
        words[Self::LOCAL] = self.local;
        words[Self::LISTED] = self.listed;
        words[Self::ERROR] = self.error;
        words
    }

    /// Reads a report's words.
    ///
    /// # Errors
    /// [`UnknownWord`] for a choice or reason without a number.
    pub fn read(words: &[f32]) -> Result<Self, UnknownWord> {
        let count = |word: usize| words[word].max(0.0) as u32;
        let mut costs = [0.0; CHOICES];
        costs.copy_from_slice(&words[Self::COSTS..Self::COSTS + CHOICES]);
        Ok(Self {
            choice: named(words, Self::CHOICE, Choice::from_number)?,
            why: named(words, Self::WHY, Why::from_number)?,
            predicted_recall: words[Self::PREDICTED_RECALL],
            recall: words[Self::RECALL],
            density: words[Self::DENSITY],
            columns: count(Self::COLUMNS),
            slashes: count(Self::SLASHES),
            blocks: count(Self::BLOCKS),
            costs,
            local: words[Self::LOCAL],
            listed: words[Self::LISTED],
            error: words[Self::ERROR],
        })
    }
}

/// Names the number in a word by `of`.
fn named<T>(words: &[f32], word: usize, of: fn(u32) -> Option<T>) -> Result<T, UnknownWord> {
    let value = words[word];
    let whole = value >= 0.0 && value.fract() == 0.0;
    let found = whole.then_some(value as u32).and_then(of);
    found.ok_or(UnknownWord { word, value })
}

/// Gives a count as an `f32` without rounding: its low 8 bits are dropped from 2^24 on.
#[inline]
pub fn exact(count: u32) -> f32 {
    match count < 1 << 24 {
        true => count as f32,
        false => (count & !0xff) as f32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places_in_the_list_of_all() {
        for (number, choice) in Choice::ALL.into_iter().enumerate() {
            assert_eq!(choice.number() as usize, number);
            assert_eq!(Choice::from_number(number as u32), Some(choice));
        }
        for (number, why) in Why::ALL.into_iter().enumerate() {
            assert_eq!(why.number() as usize, number);
            assert_eq!(Why::from_number(number as u32), Some(why));
        }
        assert_eq!(Choice::from_number(5), None);
        assert_eq!(Why::from_number(10), None);
        assert_eq!(Choice::from_number(6), Some(Choice::GroupBlocks));
        assert_eq!((Choice::Index.number(), Choice::Index.name()), (5, "index"));
    }

    #[test]
    fn a_report_survives_its_words() {
        let report = Report {
            choice: Choice::Hybrid,
            why: Why::NothingKeepsTheFloor,
            predicted_recall: 0.5,
            recall: 0.25,
            density: 0.125,
            columns: 3,
            slashes: 2,
            blocks: 1 << 25,
            costs: [1.0, 2.0, 3.0, 4.0, f32::INFINITY],
            local: 0.3,
            listed: 0.4,
            error: 0.1,
        };
        let words = report.words();
        assert_eq!(Report::read(&words), Ok(report));
    }

    #[test]
    fn unknown_numbers_are_named() {
        let mut words = [0.0; REPORT_WORDS];
        for value in [5.0, -1.0, 0.5, f32::NAN] {
            words[Report::CHOICE] = value;
            let error = Report::read(&words).expect_err("refused");
            assert_eq!(error.word, Report::CHOICE);
        }
        words[Report::CHOICE] = 4.0;
        words[Report::WHY] = 10.0;
        let error = Report::read(&words).expect_err("refused");
        assert_eq!(error.to_string(), "word 1 is 10, which no selection writes");
    }

    #[test]
    fn large_counts_are_exact() {
        assert_eq!(exact((1 << 24) - 1), 16_777_215.0);
        assert_eq!(exact(u32::MAX), 4_294_967_040.0);
    }
}
