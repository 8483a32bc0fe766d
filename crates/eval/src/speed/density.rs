//! `--density 8k=0.54,32k=0.187`: densities that stand in for a selector's.
//!
//! Random weights give no selector anything to find, so where only they can be had the number of kept
//! blocks is imposed: [`FixedBlocks`] of that density. A whole model selects all the same, as the preset
//! it would have does, and then reads the blocks ([`AttentionSettings::imposed`]): so time and memory are
//! those of selection and attention at that density. Attention alone reads the blocks without a selection.
//! Answers mean nothing.

use sparse_accelerate::{AttentionMode, AttentionSettings, FixedBlocks, Pattern, select::Preset};
use sparse_accelerate_engine::parse_lengths;

use super::{Case, SpeedError};

/// Names the rows of attention alone at an imposed density.
const BLOCKS_NAME: &str = "forced density";
/// The preset whose selection is timed beside an imposed density.
const PRESET: Preset = Preset::Balanced;

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
                    let lengths = parse_lengths(length).map_err(|_| wrong(part))?;
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

    /// Names the rows of a whole model at an imposed density.
    pub fn name() -> String {
        format!("{}, {BLOCKS_NAME}", PRESET.name())
    }

    /// Describes the selection of such rows for run files.
    pub fn selection() -> String {
        let preset = PRESET.name();
        format!("{preset}: it runs whole and is timed, attention reads imposed blocks")
    }

    /// A whole model at a length: the preset's selection, then attention over imposed blocks; `None` where
    /// no density is given. `heads` are the query heads and the KV heads.
    pub fn selected(&self, length: usize, [heads, kv_heads]: [usize; 2]) -> Option<Case> {
        let settings = PRESET.settings();
        let choosing = settings.choices(heads, kv_heads);
        Some(Case {
            name: Self::name(),
            settings: AttentionSettings {
                mode: AttentionMode::Sparse,
                imposed: Some(self.blocks(length, choosing)?),
                ..settings
            },
            forced: true,
        })
    }

    /// Attention alone at a length, over the blocks of `kv_heads` heads; `None` where no density is given.
    pub fn attention(&self, length: usize, kv_heads: usize) -> Option<Case> {
        let blocks = self.blocks(length, kv_heads)?;
        Some(Case {
            name: BLOCKS_NAME.into(),
            settings: AttentionSettings::sparse(Pattern::FixedBlocks(blocks)),
            forced: true,
        })
    }

    fn blocks(&self, length: usize, heads: usize) -> Option<FixedBlocks> {
        let of = |wanted| self.densities.iter().find(|(length, _)| *length == wanted);
        let (_, density) = of(Some(length)).or_else(|| of(None))?;
        Some(FixedBlocks {
            heads,
            block: self.block,
            density: *density,
            seed: self.seed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn density(forced: &ForcedDensity, length: usize) -> Option<f64> {
        forced.blocks(length, 2).map(|blocks| blocks.density)
    }

    #[test]
    fn a_whole_model_selects_before_it_reads_the_blocks() {
        let forced = ForcedDensity::parse("0.1", 128, 7).unwrap();
        let case = forced.selected(8192, [32, 8]).unwrap();
        assert!(case.forced && case.settings.pattern.selects());
        let imposed = case.settings.imposed.unwrap();
        assert_eq!((imposed.heads, imposed.block, imposed.seed), (32, 128, 7));
        let alone = forced.attention(8192, 8).unwrap().settings;
        assert!(!alone.pattern.selects() && alone.imposed.is_none());
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
