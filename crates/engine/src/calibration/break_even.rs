//! The prompt length from which a selection pays.

use serde::{Deserialize, Serialize};

/// Prompt length from which preset `balanced` was no slower than dense.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum BreakEven {
    /// It was no slower from this many tokens on, at every measured length.
    From {
        /// Tokens.
        tokens: usize,
    },
    /// It was slower at the longest measured length.
    Beyond {
        /// The longest measured, tokens.
        longest: usize,
    },
    /// It could not be measured.
    Unknown {
        /// The reason.
        reason: String,
    },
}

impl BreakEven {
    /// Finds the first of ascending lengths from which on no time over dense is above 1.
    pub fn of(ratios: &[(usize, f64)]) -> Self {
        let Some((longest, _)) = ratios.last() else {
            return Self::Unknown {
                reason: "no length was measured".into(),
            };
        };
        let slow = ratios
            .iter()
            .rposition(|(_, ratio)| ratio.is_nan() || *ratio > 1.0);
        match ratios.get(slow.map_or(0, |at| at + 1)) {
            Some((tokens, _)) => Self::From { tokens: *tokens },
            None => Self::Beyond { longest: *longest },
        }
    }

    /// Gives the prompt tokens from which `auto` is sparse: the break-even length, or twice the longest
    /// measured prompt where dense was faster there. (Twice the tokens take dense attention four
    /// times as long, a selection less.) `None` where nothing is known.
    pub fn min_sparse_len(&self) -> Option<usize> {
        match self {
            Self::From { tokens } => Some(*tokens),
            Self::Beyond { longest } => Some(2 * longest),
            Self::Unknown { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_longer_prompt_must_be_as_fast() {
        let of = |ratios: &[f64]| {
            let lengths = [1024, 2048, 4096, 8192];
            let pairs: Vec<_> = lengths.into_iter().zip(ratios.iter().copied()).collect();
            BreakEven::of(&pairs)
        };
        assert_eq!(of(&[0.9, 1.1, 1.0, 0.5]), BreakEven::From { tokens: 4096 });
        assert_eq!(of(&[0.9, 0.8, 0.7, 0.6]), BreakEven::From { tokens: 1024 });
        let beyond = of(&[0.9, 0.8, 0.7, 1.2]);
        assert_eq!(beyond, BreakEven::Beyond { longest: 8192 });
        assert_eq!(beyond.min_sparse_len(), Some(16384));
        assert_eq!(of(&[f64::NAN]), BreakEven::Beyond { longest: 1024 });
        assert!(matches!(of(&[]), BreakEven::Unknown { .. }));
    }
}
