//! `pooled` against its rule in f64: whatever the cut, the kept blocks are those of most mass, and just enough of
//! them.

use burn::tensor::Device;
use sparse_accelerate::{Span, index::QUERY_TILE};
use sparse_accelerate_baselines::Baseline;
use sparse_accelerate_tests::backends;

use crate::{
    index,
    inputs::{Case, chunk},
};

/// Rounding of a share of the mass: f32 products of 128 terms, their exponentials, their sums.
const EPSILON: f64 = 2e-4;

/// The parameters of a baseline.
#[derive(Clone, Copy)]
struct Rule {
    parts: usize,
    means: usize,
    mass: f64,
    sink: usize,
    window: usize,
    together: bool,
}

impl Rule {
    fn baseline(&self) -> Baseline {
        let Self {
            parts,
            means,
            mass,
            sink,
            window,
            together,
        } = *self;
        let together = usize::from(together);
        Baseline::parse(&format!(
            "pooled:parts={parts}:means={means}:mass={mass}:sink={sink}:window={window}:together={together}"
        ))
        .expect("a baseline")
    }

    /// Shares of the key blocks of a tile, of one query head.
    fn shares(&self, case: &Case, b: usize, head: usize, tile: usize) -> Vec<f64> {
        let (p, span) = (&case.problem, case.problem.spans[b]);
        let (d, group) = (p.head_dim, p.heads / p.kv_heads);
        let mean = |values: &[f32], at: usize, rows: std::ops::Range<usize>| -> Vec<f64> {
            let count = rows.len() as f64;
            let of = |x: usize| {
                let row = |r: usize| f64::from(values[(at + r) * d + x]);
                rows.clone().map(row).sum::<f64>() / count
            };
            (0..d).map(of).collect()
        };
        let query_at = (b * p.heads + head) * p.rows();
        let key_at = (b * p.kv_heads + head / group) * p.keys();
        let (size, width) = (QUERY_TILE / self.parts, QUERY_TILE / self.means);
        let rows = tile * QUERY_TILE..((tile + 1) * QUERY_TILE).min(span.query_len);
        let own = (span.offset() + tile * QUERY_TILE) / QUERY_TILE;
        let mut shares = vec![0.0; own + 1];
        for first in rows.clone().step_by(size) {
            let part = first..(first + size).min(rows.end);
            let query = mean(&case.inputs.query, query_at, part.clone());
            let last = span.offset() + part.end - 1;
            let scores: Vec<f64> = (0..=last / width)
                .map(|s| s * width..((s + 1) * width).min(span.kv_len))
                .map(|keys| mean(&case.inputs.key, key_at, keys))
                .map(|key| key.iter().zip(&query).map(|(k, q)| k * q).sum::<f64>())
                .map(|dot| dot / (d as f64).sqrt())
                .collect();
            let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|s| (s - highest).exp()).sum();
            for (s, score) in scores.iter().enumerate() {
                shares[s / self.means] +=
                    (score - highest).exp() / total * part.len() as f64 / rows.len() as f64;
            }
        }
        shares
    }
}

/// Shares of the key blocks by sequence, head that chooses, and tile.
fn reference(rule: &Rule, case: &Case) -> Vec<Vec<Vec<Vec<f64>>>> {
    let p = &case.problem;
    let choosing = if rule.together { p.kv_heads } else { p.heads };
    let size = p.heads / choosing;
    let of_tile = |b, head: usize, tile| {
        let mut shares = Vec::new();
        for h in head * size..(head + 1) * size {
            let own = rule.shares(case, b, h, tile);
            shares.resize(own.len(), 0.0);
            let pairs = shares.iter_mut().zip(own);
            pairs.for_each(|(to, share)| *to += share / size as f64);
        }
        shares
    };
    let of_head = |b: usize, head| {
        let tiles = p.spans[b].query_len.div_ceil(QUERY_TILE);
        (0..tiles).map(|tile| of_tile(b, head, tile)).collect()
    };
    let of_sequence = |b| (0..choosing).map(|head| of_head(b, head)).collect();
    (0..p.spans.len()).map(of_sequence).collect()
}

fn check(rule: &Rule, case: &Case, want: &[Vec<Vec<Vec<f64>>>], device: &Device, name: &str) {
    let index = index(&rule.baseline(), case, device);
    index.validate().expect("invariants");
    for (b, heads) in want.iter().enumerate() {
        assert_eq!(index.heads(), heads.len(), "{name}");
        for (head, tiles) in heads.iter().enumerate() {
            for (tile, shares) in tiles.iter().enumerate() {
                let what = format!("{name}, sequence {b}, head {head}, tile {tile}");
                let first = case.problem.spans[b].offset() + tile * QUERY_TILE;
                let ranges = index.row(b, head, tile).ranges;
                let held = |block: usize| {
                    let key = (block * QUERY_TILE) as u32;
                    ranges.chunks_exact(2).any(|r| r[0] <= key && key < r[1])
                };
                let forced = |block: usize| {
                    let recent = (first + 1).saturating_sub(rule.window) / QUERY_TILE;
                    block < rule.sink.div_ceil(QUERY_TILE) || block >= recent
                };
                let (mut sum, mut least, mut most) = (0.0, f64::INFINITY, 0f64);
                for (block, &share) in shares.iter().enumerate() {
                    match (held(block), forced(block)) {
                        (true, forced) => {
                            sum += share;
                            if !forced {
                                least = least.min(share);
                            }
                        }
                        (false, true) => panic!("{what}: block {block} missing"),
                        (false, false) => most = most.max(share),
                    }
                }
                assert!(sum > rule.mass - EPSILON, "{what}: keeps {sum}");
                assert!(most < least + EPSILON, "{what}: {most} left, {least} kept");
                let without = sum - least;
                assert!(without < rule.mass + EPSILON, "{what}: {without} is enough");
            }
        }
    }
}

#[test]
fn the_fewest_blocks_that_hold_the_share() {
    let rule = |parts, means, mass, together| Rule {
        parts,
        means,
        mass,
        sink: 64,
        window: 70,
        together,
    };
    let rules = [
        rule(64, 64, 0.9, true),
        rule(4, 1, 0.8, true),
        rule(1, 2, 0.5, false),
    ];
    let cases = [
        Case::structured(4, 2, &[Span::whole(500)]),
        Case::random([3, 1, 32], &[chunk(200, 712, 712), Span::whole(9)]),
    ];
    for case in &cases {
        for rule in &rules {
            let want = reference(rule, case);
            for backend in backends::all() {
                let name = format!("{} on {}, {}", rule.baseline(), backend.name, case.name);
                check(rule, case, &want, &backend.device, &name);
            }
        }
    }
}
