//! From the probes' attention by column and by slash to the columns and slashes that every row keeps.

use rayon::prelude::*;

use sparse_accelerate_contract::{
    ListLayout, PROBE_GROUP, Rules, Sequence, Shape, Thresholds, report::exact,
    scratch::COVERED_WORDS,
};

use super::fixed::{ONE, fixed, ratio, scaled, score, share};

/// Bits of the unit in which columns are added.
const SUM_BITS: i32 = 28;

/// Columns `[B, Hq, 2, keys]`, slashes `[B, Hq, 2, ceil(keys / 16)]` in units of 2^-20, spans `[B, 4]`, rules
/// `[Hi, 8]` to lists `[B * Hi]` and covered mass `[B * Hq, 4]`: `A_T`, `A_IS` of either group of probes.
///
/// Kept is what reaches the threshold in any of an index head's query heads; where that is more than the
/// rules allow, the threshold rises along bins of an eighth of an octave.
#[allow(clippy::too_many_arguments)]
pub fn cut_columns(
    shape: &Shape,
    layout: &ListLayout,
    thresholds: &Thresholds,
    columns: &[f32],
    slashes: &[u32],
    spans: &[u32],
    rules: &[u32],
    lists: &mut [u32],
    covered: &mut [f32],
) {
    let (heads_per_index, buckets) = (shape.heads_per_index(), shape.slash_buckets());
    let indexes = shape.indexes();
    let parts = lists[..indexes * layout.stride()]
        .par_chunks_mut(layout.stride())
        .zip(covered.par_chunks_mut(COVERED_WORDS * heads_per_index))
        .enumerate();
    parts.for_each(|(index, (list, covered))| {
        let sequence = Sequence::of(spans, index / shape.index_heads);
        let rule = Rules::of(rules, index % shape.index_heads);
        let heads = index * heads_per_index..(index + 1) * heads_per_index;
        let columns = &columns[heads.start * 2 * shape.keys..heads.end * 2 * shape.keys];
        let slashes = &slashes[heads.start * 2 * buckets..heads.end * 2 * buckets];
        let kv_len = sequence.kv_len.min(shape.keys);

        let length = exact(shape.visible.most(sequence.kv_len) as u32);
        let scores = column_scores(
            columns,
            [shape.keys, kv_len],
            rule.sink as usize,
            length,
            thresholds,
        );
        let most = (rule.columns as usize).min(layout.columns);
        let kept_columns = highest(&scores, most);
        let rows = probes(sequence.query_len);
        let scores = slash_scores(slashes, buckets, length, rows, thresholds);
        let most = (rule.slashes as usize).min(layout.slashes);
        let kept_slashes = highest(&scores, most);

        list[ListLayout::COLUMNS] = kept_columns.len() as u32;
        list[ListLayout::SLASHES] = kept_slashes.len() as u32;
        for (to, from) in list[ListLayout::COLUMNS_AT..].iter_mut().zip(&kept_columns) {
            *to = *from as u32;
        }
        for (to, from) in list[layout.slashes_at()..].iter_mut().zip(&kept_slashes) {
            *to = *from as u32;
        }
        for (at, of_group) in columns.chunks_exact(shape.keys).enumerate() {
            let by_slash = &slashes[at * buckets..][..buckets];
            let sum = |sum: u32, value: f32| sum.wrapping_add(fixed(score(value), SUM_BITS));
            let total = of_group[..kv_len].iter().copied().fold(0, sum);
            let kept = kept_columns.iter().map(|&j| of_group[j]).fold(0, sum);
            let slash = kept_slashes.iter().map(|&b| by_slash[b]);
            let slash = slash.fold(0u32, u32::wrapping_add);
            let (local, both) = cover(total, kept, slash, rows);
            covered[at * 2] = share(local);
            covered[at * 2 + 1] = share(both);
        }
    });
}

/// The mass that local keys cover, and that they and the kept columns and slashes do, as if those two were
/// independent. In units of 2^-24, from sums in units of 2^-28 and 2^-20.
fn cover(total: u32, columns: u32, slashes: u32, rows: u32) -> (u32, u32) {
    let rest = total.min(1 << SUM_BITS) >> (SUM_BITS - 24);
    let local = ONE - rest;
    let by_columns = (columns >> (SUM_BITS - 24)).min(rest);
    let by_slashes = (slashes.min(rows << 20) << 4) / rows;
    let apart = ONE - ratio(by_columns, rest);
    (
        local,
        (local + by_columns + scaled(apart, by_slashes)).min(ONE),
    )
}

/// Valid probe rows of either group, if it has any, of a sequence with so many new rows; at least 1.
fn probes(query_len: usize) -> u32 {
    query_len.clamp(1, PROBE_GROUP) as u32
}

/// The bits of every column's score, 0 below the threshold; `length` is the most keys that a row sees.
fn column_scores(
    columns: &[f32],
    [keys, kv_len]: [usize; 2],
    sink: usize,
    length: f32,
    thresholds: &Thresholds,
) -> Vec<u32> {
    let mut scores = vec![0f32; keys];
    for of_group in columns.chunks_exact(keys) {
        for (to, from) in scores[..kv_len].iter_mut().zip(of_group) {
            *to = to.max(score(*from));
        }
    }
    let keep = |(j, score): (usize, &f32)| match j >= sink && *score * length >= thresholds.column {
        true => score.to_bits(),
        false => 0,
    };
    scores.iter().enumerate().map(keep).collect()
}

/// The bits of every slash bucket's score, 0 below the threshold.
fn slash_scores(
    slashes: &[u32],
    buckets: usize,
    length: f32,
    rows: u32,
    thresholds: &Thresholds,
) -> Vec<u32> {
    let mut sums = vec![0u32; buckets];
    for of_head in slashes.chunks_exact(buckets) {
        for (to, from) in sums.iter_mut().zip(of_head) {
            *to = (*to).max(*from);
        }
    }
    let wanted = thresholds.bucket() * exact(rows << 20);
    let keep = |sum: &u32| match exact(*sum) * length >= wanted {
        true => exact(*sum).to_bits(),
        false => 0,
    };
    sums.iter().map(keep).collect()
}

/// The places of the scores that are not 0 and lie at or above the lowest bound of a bin, an eighth of an
/// octave, from which on there are at most `most`.
fn highest(scores: &[u32], most: usize) -> Vec<usize> {
    let bin = |score: u32| (score >> 20) as usize;
    let mut bins = [0usize; 1 << 12];
    for score in scores.iter().filter(|s| **s > 0) {
        bins[bin(*score)] += 1;
    }
    let mut above = 0;
    let fits = |count: &&usize| {
        above += **count;
        above <= most
    };
    let lowest = bins.len() - bins.iter().rev().take_while(fits).count();
    let kept = |(_, score): &(usize, &u32)| **score > 0 && bin(**score) >= lowest;
    let at = scores.iter().enumerate().filter(kept);
    at.map(|(at, _)| at).collect()
}
