//! Report of an index head, word by word.

use cubecl::prelude::*;
use sparse_accelerate_contract::{REPORT_WORDS, Report};

/// The place of an index head's report.
#[derive(CubeType, Clone, Copy)]
pub(crate) struct HeadReport {
    at: usize,
}

#[cube]
impl HeadReport {
    /// Finds the report of index head `index`, counting those of all sequences.
    pub(crate) fn of(index: usize) -> HeadReport {
        HeadReport {
            at: index * REPORT_WORDS,
        }
    }

    /// Reads the number of the choice.
    pub(crate) fn choice(&self, report: &[f32]) -> u32 {
        u32::cast_from(report[self.at + Report::CHOICE])
    }

    /// Writes a word: one of the constants of [`Report`].
    pub(crate) fn put(&self, report: &mut [f32], value: f32, #[comptime] word: usize) {
        report[self.at + word] = value;
    }

    /// Writes a word by its bits, which no compiler may change.
    pub(crate) fn put_bits(&self, report: &mut [u32], bits: u32, #[comptime] word: usize) {
        report[self.at + word] = bits;
    }
}
