//! Share of attention's pairs that a sparse prefill computes.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};
use thiserror::Error;

/// Densities that FlashPrefill V2 (arXiv 2608.19758) publishes for Llama-3.1-8B at equal accuracy, by prompt
/// length.
pub const PUBLISHED: [(usize, f64); 6] = [
    (4096, 0.76),
    (8192, 0.54),
    (16_384, 0.336),
    (32_768, 0.187),
    (65_536, 0.09),
    (131_072, 0.046),
];

/// The density of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Density {
    /// The published density of the prompt's length, [`PUBLISHED`].
    #[default]
    ByLength,
    /// This share of the causal pairs.
    Given(f64),
}

impl Density {
    /// Gives the density of a prompt. [`Density::ByLength`] is 1 below the table, a power of the length between
    /// two of its lengths, and its last value beyond.
    pub fn at(self, tokens: usize) -> f64 {
        let share = match self {
            Density::Given(share) => return share,
            Density::ByLength => PUBLISHED.partition_point(|entry| entry.0 < tokens),
        };
        let last = PUBLISHED[PUBLISHED.len() - 1];
        let (length, density) = PUBLISHED.get(share).copied().unwrap_or(last);
        if length <= tokens {
            return density;
        }
        let Some((short, above)) = share.checked_sub(1).map(|before| PUBLISHED[before]) else {
            return 1.0;
        };
        let ln = |n: usize| (n as f64).ln();
        let share = (ln(tokens) - ln(short)) / (ln(length) - ln(short));
        (above.ln() + share * (density.ln() - above.ln())).exp()
    }
}

/// Error of a text that is no density.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "density `{got}` is neither `by-length` nor a share of the causal pairs above 0 and at most 1"
)]
pub struct DensityError {
    /// The text.
    pub got: String,
}

impl FromStr for Density {
    type Err = DensityError;

    fn from_str(text: &str) -> Result<Self, DensityError> {
        match (text, text.parse()) {
            ("by-length", _) => Ok(Self::ByLength),
            (_, Ok(share)) if share > 0.0 && share <= 1.0 => Ok(Self::Given(share)),
            _ => Err(DensityError { got: text.into() }),
        }
    }
}

impl fmt::Display for Density {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Density::ByLength => f.write_str("by-length"),
            Density::Given(share) => write!(f, "{share}"),
        }
    }
}

impl Serialize for Density {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_met_and_falls_between_its_lengths() {
        for (length, density) in PUBLISHED {
            assert_eq!(Density::ByLength.at(length), density);
        }
        assert_eq!(Density::ByLength.at(4095), 1.0);
        assert_eq!(Density::ByLength.at(1 << 20), 0.046);
        // Halfway in powers: the geometric mean.
        let middle = Density::ByLength.at(46_341);
        assert!((middle - (0.187f64 * 0.09).sqrt()).abs() < 1e-4, "{middle}");
        assert_eq!(Density::Given(0.3).at(17), 0.3);
    }

    #[test]
    fn densities_are_read_and_refused() {
        for text in ["by-length", "0.25", "1"] {
            assert_eq!(text.parse::<Density>().expect(text).to_string(), text);
        }
        for text in ["", "0", "1.5", "-1", "nan", "by length"] {
            let error = text.parse::<Density>().expect_err(text).to_string();
            assert!(error.contains("by-length"), "{error}");
        }
    }
}
