//! Shares against the formula in f64, and what they tell of a planted slash.

use burn::tensor::bf16;

use super::*;
use crate::select::cpu::testing::{CASES, Case, Kind, Random, close, dot, log_sum_exp};

fn run<E: FlexFloat>(case: &Case<E>, rules: &[u32], bands: &[f32], gauss: bool) -> Vec<f32> {
    let shape = &case.shape;
    let len = shape.batch * shape.heads * shape.query_blocks() * shape.key_blocks();
    let mut scores = vec![f32::NAN; len];
    let pooled = case.pooled();
    let pooled = case.in_blocks(&pooled);
    score(
        shape,
        case.query(),
        pooled,
        &case.spans,
        rules,
        bands,
        gauss,
        &mut scores,
    );
    scores
}

/// The larger half of the dimensions doubled; all of them.
fn bands(d: usize) -> Vec<f32> {
    (0..2 * d)
        .map(|i| if i < d / 2 || i >= d { 1.0 } else { 2.0 })
        .collect()
}

fn matches_formula<E: FlexFloat>(gauss: bool) {
    let windows = [None, Some(1), Some(201), Some(384), Some(500)];
    let cases = CASES.iter().enumerate();
    for ((seed, &lengths), visible) in cases.flat_map(|case| windows.map(|window| (case, window))) {
        let case = Case::<E>::normal(lengths, 3.0, seed as u64).under(visible);
        let (shape, d) = (case.shape, case.shape.head_dim);
        let (sinks, window) = (130, 200);
        let got = run(&case, &case.rules(sinks, window, 0.0), &bands(d), gauss);
        let (blocks, scale) = (shape.key_blocks(), f64::from(shape.scale));
        for (item, got) in got.chunks_exact(blocks).enumerate() {
            let (head, t) = (item / shape.query_blocks(), item % shape.query_blocks());
            let (b, h) = (head / shape.heads, head % shape.heads);
            let (query_len, kv_len) = case.lengths(b);
            let first = kv_len - query_len + 128 * t;
            let sink = sinks + 3 * (h / shape.heads_per_index());
            let local = visible.is_some_and(|keys| window >= keys as usize);
            let candidate = |j: &usize| {
                128 * t < query_len
                    && !local
                    && 128 * j + 128 > case.first(b, 128 * t)
                    && 128 * j + 128 <= first
                    && 128 * j + 128 > sink
                    && 128 * j + window <= first
            };
            let candidates: Vec<usize> = (0..blocks).filter(candidate).collect();
            let moments: Vec<_> = candidates
                .iter()
                .map(|&j| case.moments(b, h / shape.heads_per_kv(), j))
                .collect();
            let mut rows: Vec<usize> = (128 * t..(128 * t + 128).min(query_len))
                .filter(|r| r % 8 == 4)
                .collect();
            if rows.is_empty() {
                rows.push(128 * t);
            }
            let mut exact = vec![0.0f64; blocks];
            for (v, band) in bands(d).chunks_exact(d).enumerate() {
                let mut mean = vec![0.0; blocks];
                for &row in rows.iter().filter(|_| !candidates.is_empty()) {
                    let query = case.exact(case.query(), b, h, row);
                    let weighted: Vec<f64> = query
                        .iter()
                        .zip(band)
                        .map(|(x, &w)| x * f64::from(w))
                        .collect();
                    let squares: Vec<f64> = query.iter().map(|x| x * x).collect();
                    let logit = |[key, variance, _]: &[Vec<f64>; 3]| {
                        let second = if gauss && v == 0 {
                            scale * scale / 2.0 * dot(&squares, variance)
                        } else {
                            0.0
                        };
                        scale * dot(&weighted, key) + second + 128f64.ln()
                    };
                    // Of the 128 keys of a block those that the row sees.
                    let keys = |j: usize| {
                        let seen = 128 * j + 128 - case.first(b, row).clamp(128 * j, 128 * j + 128);
                        (seen as f64 / 128.0).ln()
                    };
                    let logits = moments.iter().map(logit).zip(&candidates);
                    let logits: Vec<f64> = logits.map(|(logit, &j)| logit + keys(j)).collect();
                    if logits.iter().all(|logit| *logit == f64::NEG_INFINITY) {
                        continue;
                    }
                    let lse = log_sum_exp(&logits);
                    for (&j, logit) in candidates.iter().zip(logits) {
                        mean[j] += (logit - lse).exp() / rows.len() as f64;
                    }
                }
                exact.iter_mut().zip(mean).for_each(|(e, m)| *e = e.max(m));
            }
            close("scores", got, &exact, 1e-6, 1e-5);
            let stray = (0..blocks).any(|j| !candidate(&j) && got[j] != 0.0);
            assert!(!stray, "a share outside of the candidates");
        }
    }
}

#[test]
fn shares_match_the_formula_f32() {
    matches_formula::<f32>(false);
}

#[test]
fn shares_with_the_second_order_match_the_formula_f32() {
    matches_formula::<f32>(true);
}

#[test]
fn shares_with_the_second_order_match_the_formula_bf16() {
    matches_formula::<bf16>(true);
}

/// Share of the pairs `(p, p - offset)`, of query blocks that have the whole slash before their
/// window, that lie in the `keep` blocks of largest score.
fn slash_kept(scores: &[f32], blocks: usize, offset: usize, keep: usize) -> f64 {
    let (mut kept, mut all) = (0, 0);
    for (t, scores) in scores
        .chunks_exact(blocks)
        .enumerate()
        .skip(offset / BLOCK + 2)
    {
        let mut order: Vec<usize> = (0..blocks).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let keys = (t * BLOCK..(t + 1) * BLOCK).map(|p| (p - offset) / BLOCK);
        all += BLOCK;
        kept += keys.filter(|j| order[..keep].contains(j)).count();
    }
    kept as f64 / all as f64
}

/// Queries and keys that attend at one distance through the fast rotating pairs, while the slow
/// pairs carry larger terms that differ from block to block and say nothing of the distance.
#[test]
fn a_slash_that_the_full_band_misses_is_kept_by_two() {
    const D: usize = 64;
    const LEN: usize = 8192;
    const OFFSET: usize = 700;
    // Pairs below turn by more than 1.7 rad within a key block, base 10,000.
    const FAST: usize = 16;
    let turn = |pair: usize, p: usize| p as f64 * 10_000f64.powf(-(pair as f64) / 32.0);
    let mut random = Random(4);
    // One vector for all queries, then one per key block.
    let slow: Vec<f32> = (0..(1 + LEN / BLOCK) * D)
        .map(|_| 2.7 * random.normal())
        .collect();
    let case = Case::<f32>::filled((&[(LEN, LEN)], 1, 1, D), |kind, _, _, p, row| {
        let (at, slow) = match kind {
            Kind::Key => (p + OFFSET, &slow[(1 + p / BLOCK) * D..]),
            _ => (p, &slow[..D]),
        };
        row.copy_from_slice(&slow[..D]);
        for pair in 0..FAST {
            // Pairs that a block's mean leaves nothing of, and pairs that it weakens.
            let amplitude = if pair < 11 { 6.0 } else { 3.5 };
            let (sin, cos) = turn(pair, at).sin_cos();
            row[pair] = amplitude * cos as f32;
            row[pair + D / 2] = amplitude * sin as f32;
        }
    });
    // The slash is what rows attend to.
    let logits = case.logits(0, 0, 6000);
    let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
    assert_eq!(best, Some(6000 - OFFSET));

    let band =
        |low: f32, high: f32| (0..D).map(move |i| if i % (D / 2) < FAST { high } else { low });
    let full: Vec<f32> = band(1.0, 1.0).collect();
    let two: Vec<f32> = band(1.0, 0.0).chain(band(0.0, 1.0)).collect();
    let rules = case.rules(16, 128, 0.0);
    let blocks = case.shape.key_blocks();
    // 8 of 64 blocks: a density of an eighth before the diagonal.
    let kept = |bands: &[f32]| slash_kept(&run(&case, &rules, bands, false), blocks, OFFSET, 8);
    let (full, two) = (kept(&full), kept(&two));
    assert!(full < 0.5, "the full band keeps {full}");
    assert!(two > 0.95, "two bands keep {two}");
}
