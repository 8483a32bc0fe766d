//! From the shares of key blocks to the blocks that a query block keeps, as bit masks.

use rayon::prelude::*;

use sparse_accelerate_contract::{BLOCK, Rules, Sequence, Shape, scratch::COVERED_WORDS};

use super::fixed::{fixed, missing, scaled, score};

/// Bins of shares, a quarter of an octave each: from 2^-31 to 1, and one for what is smaller.
const BINS: usize = 128;
const BASE: u32 = (127 - 31) * 4 - 1;

/// Shares `[B, Hq, query blocks, key blocks]`, covered mass `[B * Hq, 4]`, spans `[B, 4]`, rules `[Hi, 8]`
/// to masks `[2, B * Hi, query blocks, ceil(key blocks / 32)]` and counts `[2, B * Hi, query blocks]`.
///
/// Mass rule: all blocks from the highest bin on at which every query head has the share `(R - A) / (1 - A)`
/// of its blocks' mass, `A` being `A_T` for variant 0 and `A_IS` for variant 1. Max-relative rule: the
/// blocks with at least `alpha` times the largest share, for both.
pub fn cut_blocks(
    shape: &Shape,
    shares: &[f32],
    covered: &[f32],
    spans: &[u32],
    rules: &[u32],
    masks: &mut [u32],
    counts: &mut [u32],
) {
    let (query_blocks, key_blocks) = (shape.query_blocks(), shape.key_blocks());
    let (words, heads_per_index) = (shape.mask_words(), shape.heads_per_index());
    let rows = shape.indexes() * query_blocks;
    let (masks, beside) = masks[..2 * rows * words].split_at_mut(rows * words);
    let (counts, counts_beside) = counts[..2 * rows].split_at_mut(rows);
    let variants = (
        masks.par_chunks_mut(words).zip(counts),
        beside.par_chunks_mut(words).zip(counts_beside),
    );
    let rows = variants.0.zip(variants.1).enumerate();
    rows.for_each(|(row, variants)| {
        let (index, block) = (row / query_blocks, row % query_blocks);
        let sequence = Sequence::of(spans, index / shape.index_heads);
        let end = causal(sequence, block, key_blocks);
        // Before it no row sees a key.
        let seen = shape.visible.first(sequence.offset() + block * BLOCK) / BLOCK;
        let seen = seen.min(end);
        let of_head = |h: usize| {
            let at = ((index * heads_per_index + h) * query_blocks + block) * key_blocks;
            &shares[at + seen..at + end]
        };
        let heads: Vec<&[f32]> = (0..heads_per_index).map(of_head).collect();
        let covered =
            &covered[index * heads_per_index * COVERED_WORDS..][..heads_per_index * COVERED_WORDS];
        let rules = Rules::of(rules, index % shape.index_heads);
        for (variant, (mask, count)) in [variants.0, variants.1].into_iter().enumerate() {
            mask.fill(0);
            *count = 0;
            for j in kept(&heads, covered, &rules, variant) {
                let j = seen + j;
                mask[j / 32] |= 1 << (j % 32);
                *count += 1;
            }
        }
    });
}

/// Key blocks up to the one that holds the query block's last position; none past the sequence's rows.
fn causal(sequence: Sequence, block: usize, key_blocks: usize) -> usize {
    let query_len = sequence.query_len;
    if block * BLOCK >= query_len {
        return 0;
    }
    let last = sequence.offset() + ((block + 1) * BLOCK).min(query_len) - 1;
    (last / BLOCK + 1).min(key_blocks)
}

/// The blocks that one query block keeps, from a row of shares per query head.
fn kept(heads: &[&[f32]], covered: &[f32], rules: &Rules, variant: usize) -> Vec<usize> {
    let rank = |j: usize| heads.iter().map(|s| score(s[j])).fold(0f32, f32::max);
    let ranks: Vec<f32> = (0..heads[0].len()).map(rank).collect();
    let alpha = score(rules.alpha);
    if alpha > 0.0 {
        let bound = alpha * ranks.iter().copied().fold(0f32, f32::max);
        return positions(&ranks, |rank| rank >= bound);
    }
    let floor = fixed(score(rules.floor), 24);
    let lowest = heads
        .iter()
        .zip(covered.chunks_exact(COVERED_WORDS))
        .map(|(shares, c)| {
            let mut sums = [0u32; BINS];
            for (share, rank) in shares.iter().zip(&ranks) {
                let sum = &mut sums[bin(*rank)];
                *sum = sum.wrapping_add(fixed(score(*share), 24));
            }
            let has = score(c[variant]).min(score(c[variant + 2]));
            let total = sums.iter().fold(0u32, |a, b| a.wrapping_add(*b));
            let needed = scaled(missing(floor, fixed(has, 24)), total);
            let (mut lowest, mut sum) = (BINS, 0u32);
            while sum < needed {
                lowest -= 1;
                sum = sum.wrapping_add(sums[lowest]);
            }
            lowest
        });
    let lowest = lowest.min().unwrap_or(BINS);
    positions(&ranks, |rank| bin(rank) >= lowest)
}

fn bin(rank: f32) -> usize {
    (rank.to_bits() >> 21).saturating_sub(BASE) as usize
}

/// The places of positive ranks for which `keep` holds.
fn positions(ranks: &[f32], keep: impl Fn(f32) -> bool) -> Vec<usize> {
    let kept = |(_, rank): &(usize, &f32)| **rank > 0.0 && keep(**rank);
    let at = ranks.iter().enumerate().filter(kept);
    at.map(|(j, _)| j).collect()
}
