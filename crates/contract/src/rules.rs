//! The rules of an index head: what it may choose, and how much it must keep.

use crate::report::Choice;

/// Words of an index head's rules.
pub const RULE_WORDS: usize = 8;

/// The rules of one index head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// Allowed choices: the sum of their [`Choice::bit`]s.
    pub allowed: u32,
    /// Sink tokens.
    pub sink: u32,
    /// Window tokens, at least 1.
    pub window: u32,
    /// Most columns.
    pub columns: u32,
    /// Most slash buckets.
    pub slashes: u32,
    /// Recall that is aimed at, 0 to 1.
    pub floor: f32,
    /// Measured recall that is accepted, 0 to 1; of a choice of blocks by their mass, the largest measured error.
    pub accepted: f32,
    /// Share of the largest block that a block needs; 0 for the rule of the blocks' mass.
    pub alpha: f32,
}

impl Rules {
    /// Word of [`Rules::allowed`].
    pub const ALLOWED: usize = 0;
    /// Word of [`Rules::sink`].
    pub const SINK: usize = 1;
    /// Word of [`Rules::window`].
    pub const WINDOW: usize = 2;
    /// Word of [`Rules::columns`].
    pub const COLUMNS: usize = 3;
    /// Word of [`Rules::slashes`].
    pub const SLASHES: usize = 4;
    /// Word of [`Rules::floor`]: the bits of an `f32`.
    pub const FLOOR: usize = 5;
    /// Word of [`Rules::alpha`]: the bits of an `f32`.
    pub const ALPHA: usize = 6;
    /// Word of [`Rules::accepted`]: the bits of an `f32`.
    pub const ACCEPTED: usize = 7;

    /// Gives the words of the rules.
    pub fn words(&self) -> [u32; RULE_WORDS] {
        let mut words = [0; RULE_WORDS];
        words[Self::ALLOWED] = self.allowed;
        words[Self::SINK] = self.sink;
        words[Self::WINDOW] = self.window;
        words[Self::COLUMNS] = self.columns;
        words[Self::SLASHES] = self.slashes;
        words[Self::FLOOR] = self.floor.to_bits();
        words[Self::ALPHA] = self.alpha.to_bits();
        words[Self::ACCEPTED] = self.accepted.to_bits();
        words
    }

    /// Reads the rules of index head `head`.
    #[inline]
    pub fn of(words: &[u32], head: usize) -> Self {
        let words = &words[head * RULE_WORDS..][..RULE_WORDS];
        Self {
            allowed: words[Self::ALLOWED],
            sink: words[Self::SINK],
            window: words[Self::WINDOW],
            columns: words[Self::COLUMNS],
            slashes: words[Self::SLASHES],
            floor: f32::from_bits(words[Self::FLOOR]),
            accepted: f32::from_bits(words[Self::ACCEPTED]),
            alpha: f32::from_bits(words[Self::ALPHA]),
        }
    }

    /// Tells whether the rules allow a choice.
    pub fn allows(&self, choice: Choice) -> bool {
        self.allowed & choice.bit() != 0
    }

    /// Gives the leading keys that every row sees, and the latest ones, the row's own included: at least 1.
    pub fn local(&self) -> (usize, usize) {
        (self.sink as usize, self.window.max(1) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_survive_their_words() {
        let rules = Rules {
            allowed: Choice::Dense.bit() | Choice::Hybrid.bit(),
            sink: 5,
            window: 40,
            columns: 32,
            slashes: 8,
            floor: 0.9,
            accepted: 0.85,
            alpha: 0.25,
        };
        let two = [[u32::MAX; RULE_WORDS], rules.words()].concat();
        assert_eq!(Rules::of(&two, 1), rules);
        assert!(rules.allows(Choice::Hybrid) && !rules.allows(Choice::Triangular));
    }
}
