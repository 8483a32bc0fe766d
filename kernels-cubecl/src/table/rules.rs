//! Rules of an index head, each word read where it is needed.

use cubecl::prelude::*;
use sparse_accelerate_contract::{RULE_WORDS, Rules};

/// The place of an index head's rules.
#[derive(CubeType, Clone, Copy)]
pub(crate) struct HeadRules {
    at: usize,
}

#[cube]
impl HeadRules {
    /// Finds the rules of index head `head`.
    pub(crate) fn of(head: usize) -> HeadRules {
        HeadRules {
            at: head * RULE_WORDS,
        }
    }

    /// Reads the allowed choices, one bit each.
    pub(crate) fn allowed(&self, rules: &[u32]) -> u32 {
        rules[self.at + Rules::ALLOWED]
    }

    /// Reads the sink tokens.
    pub(crate) fn sink(&self, rules: &[u32]) -> u32 {
        rules[self.at + Rules::SINK]
    }

    /// Reads the window tokens.
    pub(crate) fn window(&self, rules: &[u32]) -> u32 {
        rules[self.at + Rules::WINDOW]
    }

    /// Reads the most columns.
    pub(crate) fn columns(&self, rules: &[u32]) -> u32 {
        rules[self.at + Rules::COLUMNS]
    }

    /// Reads the most slash buckets.
    pub(crate) fn slashes(&self, rules: &[u32]) -> u32 {
        rules[self.at + Rules::SLASHES]
    }

    /// Reads the bits of the recall that is aimed at.
    pub(crate) fn floor_bits(&self, rules: &[u32]) -> u32 {
        rules[self.at + Rules::FLOOR]
    }

    /// Reads the bits of the share of the largest block that a block needs.
    pub(crate) fn alpha_bits(&self, rules: &[u32]) -> u32 {
        rules[self.at + Rules::ALPHA]
    }

    /// Reads the measured recall that is accepted, or the largest measured error.
    pub(crate) fn accepted(&self, rules: &[u32]) -> f32 {
        f32::reinterpret(rules[self.at + Rules::ACCEPTED])
    }
}
