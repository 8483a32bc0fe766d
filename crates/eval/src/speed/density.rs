//! `--density 8k=0.54,32k=0.187`: densities that stand in for a selector's.
//!
//! Random weights give no selector anything to find, so where only they can be had the number of kept
//! blocks is imposed: [`FixedBlocks`] of that density. Times and memory then are those of the kernels
//! at that density; the selector's own time is missing, and answers mean nothing.

use sparse_accelerate::{AttentionSettings, FixedBlocks, Pattern};

use super::{Case, SpeedError};

/// Names the rows of an imposed density.
pub const FORCED_NAME: &str = "forced density";

/// Densities by length, or one for all.
#[derive(Debug, Clone, PartialEq)]
pub struct ForcedDensity {
    /// Length, `None` for every one, and share of causal pairs.
    densities: Vec<(Option<usize>, f64)>,
    /// Tokens of a block.
    block: usize,
    /// Seed of the choice of blocks.
    seed: u64,
}

impl ForcedDensity {
    /// Reads `0.1` or `8k=0.54,32k=0.187`.
    ///
    /// # Errors
    /// A part that is no density, or a length given twice.
    pub fn parse(text: &str, block: usize, seed: u64) -> Result<Self, SpeedError> {
        let wrong = |part: &str| SpeedError::Density {
            got: text.into(),
            part: part.into(),
        };
        let mut densities: Vec<(Option<usize>, f64)> = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (length, share) = match part.split_once('=') {
                Some((length, share)) => {
                    let lengths = crate::parse_lengths(length).map_err(|_| wrong(part))?;
                    (lengths.first().copied(), share)
                }
                None => (None, part),
            };
            let share: f64 = share.trim().parse().map_err(|_| wrong(part))?;
            let known = densities.iter().any(|(other, _)| *other == length);
            if known || !(share > 0.0 && share <= 1.0) {
                return Err(wrong(part));
            }
            densities.push((length, share));
        }
        Ok(Self {
            densities,
            block,
            seed,
        })
    }

    /// The attention at a length, over the blocks of `kv_heads` heads; `None` where no density is given.
    pub fn case(&self, length: usize, kv_heads: usize) -> Option<Case> {
        let of = |wanted| self.densities.iter().find(|(length, _)| *length == wanted);
        let (_, density) = of(Some(length)).or_else(|| of(None))?;
        let pattern = FixedBlocks {
            heads: kv_heads,
            block: self.block,
            density: *density,
            seed: self.seed,
        };
        Some(Case {
            name: FORCED_NAME.into(),
            settings: AttentionSettings::sparse(Pattern::FixedBlocks(pattern)),
            forced: true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn density(forced: &ForcedDensity, length: usize) -> Option<f64> {
        match forced.case(length, 2)?.settings.pattern {
            Pattern::FixedBlocks(blocks) => Some(blocks.density),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn densities_are_by_length_or_for_all() {
        let some = ForcedDensity::parse("8k=0.54, 32768=0.187", 128, 0).unwrap();
        let got = [2048, 8192, 32_768].map(|length| density(&some, length));
        assert_eq!(got, [None, Some(0.54), Some(0.187)]);
        let all = ForcedDensity::parse("0.1,8k=0.5", 128, 0).unwrap();
        assert_eq!(
            [2048, 8192].map(|n| density(&all, n)),
            [Some(0.1), Some(0.5)]
        );
    }

    #[test]
    fn what_is_no_density_is_named() {
        for text in [
            "",
            "8k",
            "8k=",
            "8k=2",
            "8k=0",
            "0.1,0.2",
            "x=0.1",
            "8k=0.1,8192=0.2",
            "nan",
        ] {
            let error = ForcedDensity::parse(text, 128, 0);
            assert!(matches!(error, Err(SpeedError::Density { .. })), "{text}");
        }
    }
}
