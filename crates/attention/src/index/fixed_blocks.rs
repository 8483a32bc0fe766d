//! Fixed-Blocks on the host: random key blocks whose number is ruled by a density.
//!
//! A query block of `B` rows that has `m` blocks before it keeps its own block up to the diagonal,
//! the first block, and `n` of the others, one from each of `n` equal parts, `n` such that the kept pairs
//! come nearest to the density's share of all. So a block row misses the density by at most half a block, except where the two
//! blocks that are always kept are more than was asked for. What is chosen depends on seed, head and
//! query block alone: on no layer and, where chunks start on block boundaries, on no chunk.

use crate::{
    error::AttentionError,
    index::{Builder, TileIndex},
    pattern::{FixedBlocks, Pattern},
    span::Span,
};

/// The index of a [`FixedBlocks`] pattern, `pattern.heads` index heads.
///
/// # Errors
/// As [`Builder::new`]; a block that is no multiple of the query tile, a density outside 0 to 1.
pub fn fixed_blocks(spans: &[Span], pattern: &FixedBlocks) -> Result<TileIndex, AttentionError> {
    Pattern::FixedBlocks(*pattern).validate()?;
    let mut builder = Builder::new(spans, pattern.heads, None)?;
    let block = pattern.block;
    let mut chosen = Vec::new();
    for sequence in 0..spans.len() {
        for head in 0..pattern.heads {
            let mut tile = 0;
            let mut held = None;
            while let Some((first, last)) = builder.tile_positions(sequence, tile) {
                let row = first / block;
                // Tiles of one query block share its choice.
                if held.replace(row) != Some(row) {
                    choose(pattern, head, row, &mut chosen);
                }
                let ranges = chosen.iter().map(|kb| (kb * block, (kb + 1) * block));
                let own = (row * block, last + 1);
                builder.set((sequence, head, tile), ranges.chain([own]), [])?;
                tile += 1;
            }
        }
    }
    builder.finish()
}

/// The key blocks before query block `row` that it keeps, ascending.
fn choose(pattern: &FixedBlocks, head: usize, row: usize, chosen: &mut Vec<usize>) {
    chosen.clear();
    if row == 0 {
        return;
    }
    let wanted = before_diagonal(pattern.density, pattern.block, row) - 1;
    let mut random = Random(mix(pattern.seed ^ mix((head as u64) << 32 | row as u64)));
    chosen.push(0);
    // One draw for each that is kept, not one for each there is: prompts are timed with this in them.
    let start = |part: usize| 1 + part * (row - 1) / wanted;
    chosen.extend((0..wanted).map(|part| {
        let (from, to) = (start(part), start(part + 1));
        from + random.below(to - from)
    }));
}

/// How many of the `row` blocks before the diagonal come nearest to the density, at least 1.
fn before_diagonal(density: f64, block: usize, row: usize) -> usize {
    let diagonal = (block + 1) as f64 / (2 * block) as f64;
    let asked = density * (row as f64 + diagonal) - diagonal;
    (asked.round().max(1.0) as usize).min(row)
}

/// SplitMix64.
struct Random(u64);

impl Random {
    /// A number below `n`, `n` at least 1.
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        ((u128::from(mix(self.0)) * n as u128) >> 64) as usize
    }
}

/// The output function of SplitMix64.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}
