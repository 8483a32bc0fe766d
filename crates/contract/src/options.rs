//! Options that host and kernels share: prices, thresholds, corrections, storage of a cache.

use std::{fmt, str::FromStr};

#[cfg(feature = "serde")]
use serde::{Deserialize, Serialize};

use crate::sizes::GRANULE;

/// Prices of attention's work, in any one unit of time, finite and not negative. `calibrate` measures them on
/// a device; the default has the ratios of one H100.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct Prices {
    /// A tile of 64 queries by 64 keys, dense.
    pub dense_tile: f32,
    /// The same, of an index's ranges.
    pub tile: f32,
    /// 64 gathered columns of one query tile.
    pub column: f32,
    /// An index row, beside its tiles.
    pub row: f32,
}

impl Default for Prices {
    fn default() -> Self {
        Self {
            dense_tile: 1.0,
            tile: 1.25,
            column: 2.0,
            row: 2.0,
        }
    }
}

/// Thresholds of columns and slashes, as multiples of what uniform attention would give.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// A column is kept from `column / kv_len` on.
    pub column: f32,
    /// A slash bucket is kept from `80 * slash / kv_len` on: see [`Thresholds::bucket`].
    pub slash: f32,
}

impl Thresholds {
    /// Gives the threshold of a slash bucket times `kv_len`: a bucket of 16 offsets reaches 80 keys of a
    /// query tile.
    pub fn bucket(&self) -> f32 {
        self.slash * (5 * GRANULE) as f32
    }
}

/// The correction for key blocks that are left out: one pseudo key a block, merged by log-sum-exp.
///
/// As text it is `none`, `mean`, `gaussian` (with [`Correction::CAP`]) or `gaussian:CAP`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
#[non_exhaustive]
pub enum Correction {
    /// Nothing: the softmax is renormalised over the kept keys.
    None,
    /// The block's mean key with the weight of its left-out keys (FlashPrefill V2, arXiv 2608.19758).
    #[default]
    Mean,
    /// As `Mean`, with the second-order term of the logarithm of a mean of exponentials,
    /// `ln E exp(x) = mu + sigma^2 / 2` for normal `x`, from the variance of the block's keys.
    /// Much better where keys are noise, at times worse on trained models, whose keys have outliers: there
    /// the term without its bound overestimates without limit.
    Gaussian {
        /// Most that the second-order term adds to a logit, in nats.
        cap: f32,
    },
}

/// Terms of a pseudo key's logit; what a kernel of the correction is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Order {
    /// The mean.
    First = 1,
    /// The mean and half the variance.
    Second = 2,
}

impl Correction {
    /// Cap of `gaussian` by default.
    pub const CAP: f32 = 1.0;
    /// The Gaussian correction with the default cap.
    pub const GAUSSIAN: Self = Self::Gaussian { cap: Self::CAP };

    /// Gives the terms of the logit; `None` where nothing is corrected.
    pub const fn order(self) -> Option<Order> {
        match self {
            Self::None => None,
            Self::Mean => Some(Order::First),
            Self::Gaussian { .. } => Some(Order::Second),
        }
    }

    /// Gives the most that the second-order term adds to a logit; 0 where there is none.
    pub const fn cap(self) -> f32 {
        match self {
            Self::Gaussian { cap } => cap,
            Self::None | Self::Mean => 0.0,
        }
    }
}

impl fmt::Display for Correction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Mean => f.write_str("mean"),
            Self::Gaussian { cap } if *cap == Self::CAP => f.write_str("gaussian"),
            Self::Gaussian { cap } => write!(f, "gaussian:{cap}"),
        }
    }
}

/// A text that names no correction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownCorrection(String);

impl fmt::Display for UnknownCorrection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "unknown correction `{}`; take none, mean, gaussian or gaussian:CAP, CAP being a number of at \
             least 0",
            self.0
        )
    }
}

impl std::error::Error for UnknownCorrection {}

impl FromStr for Correction {
    type Err = UnknownCorrection;

    fn from_str(text: &str) -> Result<Self, UnknownCorrection> {
        let unknown = || UnknownCorrection(text.to_owned());
        Ok(match text {
            "none" => Self::None,
            "mean" => Self::Mean,
            "gaussian" => Self::GAUSSIAN,
            _ => {
                let cap = text.strip_prefix("gaussian:").and_then(|c| c.parse().ok());
                let cap: f32 = cap.ok_or_else(unknown)?;
                match cap >= 0.0 && cap.is_finite() {
                    true => Self::Gaussian { cap },
                    false => return Err(unknown()),
                }
            }
        })
    }
}

impl TryFrom<String> for Correction {
    type Error = UnknownCorrection;

    fn try_from(text: String) -> Result<Self, UnknownCorrection> {
        text.parse()
    }
}

impl From<Correction> for String {
    fn from(correction: Correction) -> Self {
        correction.to_string()
    }
}

/// The storage of keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Stored {
    /// In the element type of the queries.
    #[default]
    Elements,
    /// As int8, four to a word, with one f32 scale per row.
    Int8,
}

/// The part of a cache, keys or values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CachePart {
    /// Keys.
    Key,
    /// Values.
    Value,
}

impl CachePart {
    /// Gives the place of the part's scales in `[B, Hk, 2, S]`.
    pub const fn index(self) -> usize {
        match self {
            Self::Key => 0,
            Self::Value => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corrections_survive_their_text() {
        for (text, correction) in [
            ("none", Correction::None),
            ("mean", Correction::Mean),
            ("gaussian", Correction::GAUSSIAN),
            ("gaussian:4.5", Correction::Gaussian { cap: 4.5 }),
        ] {
            assert_eq!(text.parse(), Ok(correction));
            assert_eq!(correction.to_string(), text);
        }
        for text in ["", "Mean", "gaussian:", "gaussian:-1", "gaussian:NaN"] {
            assert!(text.parse::<Correction>().is_err(), "{text}");
        }
    }

    #[cfg(feature = "serde")]
    #[test]
    fn settings_keep_their_words() {
        let json = serde_json::to_string(&Correction::GAUSSIAN).expect("plain data");
        assert_eq!(json, "\"gaussian\"");
        let back: Correction = serde_json::from_str("\"none\"").expect("a correction");
        assert_eq!(back, Correction::None);
    }
}
