//! The baselines' rules in f64, written from their pseudo-code over plain sets.
//!
//! Every cut gives two sets: what is kept whatever the rounding, and what may be kept. A score counts as
//! known to within a factor of `1 ± EPSILON`, a sum and a threshold too: f32 products of 128 terms with
//! logits up to 40 are off by less than 4e-5, their exponentials by as much again.

use std::collections::BTreeSet;

use sparse_accelerate::Span;
use sparse_accelerate_baselines::Baseline;

use super::inputs::Case;

const EPSILON: f64 = 2e-4;
const BLOCK: usize = 128;

/// A set known up to rounding; `must` is part of `may`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cut {
    pub(crate) must: BTreeSet<usize>,
    pub(crate) may: BTreeSet<usize>,
}

impl Cut {
    fn add(&mut self, i: usize, must: bool, may: bool) {
        if must {
            self.must.insert(i);
        }
        if must || may {
            self.may.insert(i);
        }
    }

    fn all(items: impl Iterator<Item = usize>) -> Self {
        let mut cut = Self::default();
        items.for_each(|i| cut.add(i, true, true));
        cut
    }

    fn join(&mut self, other: impl IntoIterator<Item = (usize, bool)>) {
        other
            .into_iter()
            .for_each(|(i, must)| self.add(i, must, true));
    }

    fn items(&self) -> impl Iterator<Item = (usize, bool)> + '_ {
        self.may.iter().map(|&i| (i, self.must.contains(&i)))
    }
}

/// Keys that a head keeps.
pub(crate) enum Kept {
    /// Columns and offsets.
    Lines { columns: Cut, offsets: Cut },
    /// Key blocks of every tile of 64 rows.
    Blocks(Vec<Cut>),
}

/// One sequence's rows and keys in f64.
struct View {
    span: Span,
    group: usize,
    dim: usize,
    /// `[query_len, d]` by query head, times the softmax scale; `[kv_len, d]` by KV head.
    queries: Vec<Vec<f64>>,
    keys: Vec<Vec<f64>>,
}

impl View {
    fn new(case: &Case, b: usize) -> Self {
        let (problem, span) = (&case.problem, case.problem.spans[b]);
        let d = problem.head_dim;
        let head = |values: &[f32], rows: usize, first: usize, len: usize, scale: f64| {
            assert!(len <= rows, "more rows than there are");
            let part = &values[first * rows * d..(first * rows + len) * d];
            part.iter().map(|&x| f64::from(x) * scale).collect()
        };
        let scale = 1.0 / (d as f64).sqrt();
        let query = |h| {
            let (at, rows) = (b * problem.heads + h, problem.rows());
            head(&case.inputs.query, rows, at, span.query_len, scale)
        };
        let key = |h| {
            let (at, rows) = (b * problem.kv_heads + h, problem.keys());
            head(&case.inputs.key, rows, at, span.kv_len, 1.0)
        };
        Self {
            span,
            group: problem.heads / problem.kv_heads,
            dim: d,
            queries: (0..problem.heads).map(query).collect(),
            keys: (0..problem.kv_heads).map(key).collect(),
        }
    }

    fn query(&self, h: usize, p: usize) -> &[f64] {
        let row = p - self.span.offset();
        &self.queries[h][row * self.dim..(row + 1) * self.dim]
    }

    fn key(&self, h: usize, j: usize) -> &[f64] {
        &self.keys[h / self.group][j * self.dim..(j + 1) * self.dim]
    }

    fn logit(&self, h: usize, p: usize, j: usize) -> f64 {
        dot(self.query(h, p), self.key(h, j))
    }

    /// Attention rows of the last `most` new rows: `(position, weights over 0..=position)`.
    fn attention(&self, h: usize, most: usize) -> Vec<(usize, Vec<f64>)> {
        let rows = most.min(self.span.query_len);
        (self.span.kv_len - rows..self.span.kv_len)
            .map(|p| (p, softmax((0..=p).map(|j| self.logit(h, p, j)).collect())))
            .collect()
    }

    /// Mean of keys of a block.
    fn pooled_key(&self, h: usize, block: usize) -> Vec<f64> {
        let end = ((block + 1) * BLOCK).min(self.span.kv_len);
        mean((block * BLOCK..end).map(|j| self.key(h, j)))
    }

    fn pooled_query(&self, h: usize, positions: std::ops::Range<usize>) -> Vec<f64> {
        let positions =
            positions.start.max(self.span.offset())..positions.end.min(self.span.kv_len);
        mean(positions.map(|p| self.query(h, p)))
    }

    fn blocks(&self) -> usize {
        self.span.kv_len.div_ceil(BLOCK)
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sum = 0.0;
    for x in 0..a.len() {
        sum += a[x] * b[x];
    }
    sum
}

fn mean<'a>(rows: impl Iterator<Item = &'a [f64]>) -> Vec<f64> {
    let mut count = 0.0;
    let mut sum = Vec::new();
    for row in rows {
        sum.resize(row.len(), 0.0);
        count += 1.0;
        for (to, x) in sum.iter_mut().zip(row) {
            *to += x;
        }
    }
    sum.iter().map(|x| x / count).collect()
}

fn softmax(logits: Vec<f64>) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logits.iter().map(|z| (z - largest).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|w| w / total).collect()
}

fn descending(scores: &[f64]) -> Vec<f64> {
    let mut sorted = scores.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    sorted
}

/// The `count` largest of the scores, a count between two bounds.
fn top(scores: &[f64], [fewest, most]: [usize; 2]) -> Cut {
    let sorted = descending(scores);
    let mut cut = Cut::default();
    for (i, &s) in scores.iter().enumerate() {
        let in_all =
            fewest >= sorted.len() || s * (1.0 - EPSILON) > sorted[fewest] * (1.0 + EPSILON);
        let in_any = s * (1.0 + EPSILON) >= sorted[most.min(sorted.len()) - 1] * (1.0 - EPSILON);
        // Infinite scores are kept lowest index first.
        let forced =
            s.is_infinite() && scores[..i].iter().filter(|s| s.is_infinite()).count() < fewest;
        cut.add(i, in_all || forced, in_any);
    }
    cut
}

/// Sum of the scores before `i` in descending order, at least and at most.
fn before(scores: &[f64], i: usize) -> [f64; 2] {
    let others = || (0..scores.len()).filter(|&j| j != i);
    let sum = |clear: f64| -> f64 {
        others()
            .filter(|&j| scores[j] > scores[i] * clear)
            .map(|j| scores[j])
            .sum()
    };
    [
        sum(1.0 + 2.0 * EPSILON) * (1.0 - EPSILON),
        sum(1.0 - 2.0 * EPSILON) * (1.0 + EPSILON),
    ]
}

/// Keys that every index head of sequence `b` keeps.
pub(crate) fn kept(case: &Case, baseline: &Baseline, b: usize) -> Vec<Kept> {
    let view = View::new(case, b);
    let (heads, group) = (
        case.problem.heads,
        case.problem.heads / case.problem.kv_heads,
    );
    let per_head = |f: &dyn Fn(usize) -> Kept| (0..heads).map(f).collect();
    match *baseline {
        Baseline::MInference { vertical, slash } => {
            per_head(&|h| minference(&view, h, vertical.max(30), slash.max(50)))
        }
        Baseline::FlexPrefill {
            gamma,
            tau,
            min_budget,
        } => per_head(&|h| flex_prefill(&view, h, gamma, tau, min_budget)),
        Baseline::XAttention { stride, threshold } => {
            per_head(&|h| xattention(&view, h, stride, threshold))
        }
        Baseline::FlashPrefillV1 { alpha, .. } => {
            per_head(&|h| flash_prefill(&view, h..h + 1, alpha, BLOCK, 3))
        }
        Baseline::FlashPrefillV2 { alpha, .. } => (0..heads / group)
            .map(|kv| flash_prefill(&view, kv * group..(kv + 1) * group, alpha, 64, 4))
            .collect(),
        _ => unreachable!("not a selector"),
    }
}

fn minference(view: &View, h: usize, vertical: usize, slash: usize) -> Kept {
    let len = view.span.kv_len;
    let (mut columns, mut offsets) = (vec![0.0; len], vec![0.0; len]);
    for (p, weights) in view.attention(h, 64) {
        for (j, w) in weights.iter().enumerate() {
            columns[j] += w;
            offsets[p - j] += w;
        }
    }
    columns.iter_mut().take(30).for_each(|s| *s = f64::INFINITY);
    offsets
        .iter_mut()
        .take(100)
        .for_each(|s| *s = f64::INFINITY);
    Kept::Lines {
        columns: top(&columns, [vertical.min(len); 2]),
        offsets: top(&offsets, [slash.min(len); 2]),
    }
}

/// Spreads the cuts of query blocks `first..` of 128 over the tiles of a span.
fn by_tile(span: &Span, blocks: &[Cut]) -> Kept {
    let first = span.offset() / BLOCK;
    let tiles = (span.offset()..span.kv_len).step_by(64);
    Kept::Blocks(tiles.map(|p| blocks[p / BLOCK - first].clone()).collect())
}

fn flex_prefill(view: &View, h: usize, gamma: f64, tau: f64, min_budget: usize) -> Kept {
    let span = view.span;
    let (first, blocks, fewest) = (
        span.offset() / BLOCK,
        view.blocks(),
        min_budget.div_ceil(BLOCK),
    );
    if span.kv_len <= (2 * BLOCK).max(fewest * BLOCK) {
        let cuts: Vec<Cut> = (first..blocks).map(|r| Cut::all(0..=r)).collect();
        return by_tile(&span, &cuts);
    }
    let attention = view.attention(h, 128);
    let rows = attention.len() as f64;
    let (mut columns, mut offsets) = (vec![0.0; span.kv_len], vec![0.0; span.kv_len]);
    for (p, weights) in &attention {
        for (j, w) in weights.iter().enumerate() {
            columns[j] += w / rows;
            offsets[p - j] += w / rows;
        }
    }
    let count = |scores: &[f64], gamma: f64| {
        let mut sum = 0.0;
        let sorted = descending(scores);
        let within = sorted.iter().take_while(|s| {
            sum += **s;
            sum <= gamma
        });
        ((within.count() + 1) / BLOCK + 1).max(fewest).min(blocks)
    };
    let counts = |scores: &[f64]| {
        [gamma * (1.0 - EPSILON), gamma * (1.0 + EPSILON)].map(|gamma| count(scores, gamma))
    };
    let mut counts = [counts(&columns), counts(&offsets)];
    let pool =
        |scores: &[f64]| -> Vec<f64> { scores.chunks(BLOCK).map(|c| c.iter().sum()).collect() };
    let (mut column_blocks, mut offset_blocks) = (pool(&columns), pool(&offsets));

    let pooled: Vec<Vec<f64>> = (0..blocks).map(|c| view.pooled_key(h, c)).collect();
    let last = view.pooled_query(h, span.kv_len - attention.len()..span.kv_len);
    let estimated = softmax(pooled.iter().map(|k| dot(&last, k)).collect());
    let divergence: f64 = estimated
        .iter()
        .zip(&column_blocks)
        .map(|(&p, &q)| {
            let m = (p + q) / 2.0;
            0.5 * p * (p / m).ln() + 0.5 * q * (q / m).ln()
        })
        .sum();
    let distance = divergence.sqrt();
    assert!(
        (distance - tau).abs() > 1e-3,
        "take another input: {distance} is near tau"
    );

    let mut cuts = vec![Cut::default(); blocks - first];
    if distance < tau {
        counts = [[fewest.min(blocks); 2]; 2];
        let mut entries = Vec::new();
        let mut scores = Vec::new();
        for (i, r) in (first..blocks).enumerate() {
            let query = view.pooled_query(h, r * BLOCK..(r + 1) * BLOCK);
            let row = softmax((0..=r).map(|c| dot(&query, &pooled[c])).collect());
            for (c, score) in row.into_iter().enumerate() {
                entries.push((i, c));
                scores.push(score);
            }
        }
        let most = gamma * cuts.len() as f64;
        for (e, &(i, c)) in entries.iter().enumerate() {
            let [least, largest] = before(&scores, e).map(|sum| sum + scores[e]);
            let (must, may) = (
                largest <= most * (1.0 - EPSILON),
                least <= most * (1.0 + EPSILON),
            );
            cuts[i].add(c, must, may);
        }
    }
    column_blocks[0] = f64::INFINITY;
    offset_blocks[0] = f64::INFINITY;
    let columns = top(&column_blocks, counts[0]);
    let offsets = top(&offset_blocks, counts[1]);
    for (i, cut) in cuts.iter_mut().enumerate() {
        let r = first + i;
        cut.join(columns.items().filter(|(c, _)| *c <= r));
        cut.join(
            offsets
                .items()
                .filter(|(e, _)| *e <= r)
                .map(|(e, must)| (r - e, must)),
        );
    }
    by_tile(&span, &cuts)
}

fn xattention(view: &View, h: usize, stride: usize, threshold: f64) -> Kept {
    let span = view.span;
    let (first, blocks) = (span.offset() / BLOCK, view.blocks());
    let groups = span.kv_len.div_ceil(stride);
    let mut scores = vec![vec![0.0; blocks]; blocks - first];
    for m in span.offset() / stride..groups {
        let mut logits = Vec::new();
        for n in 0..=m {
            let pairs = (0..stride).map(|k| (m * stride + stride - 1 - k, n * stride + k));
            let real: Vec<f64> = pairs
                .filter(|&(p, j)| p < span.kv_len && j < span.kv_len)
                .map(|(p, j)| view.logit(h, p, j))
                .collect();
            logits.push(match real.is_empty() {
                true => f64::NEG_INFINITY,
                false => real.iter().sum::<f64>() / real.len() as f64,
            });
        }
        if logits.iter().all(|z| z.is_infinite()) {
            logits = vec![0.0; logits.len()];
        }
        for (n, weight) in softmax(logits).into_iter().enumerate() {
            scores[m * stride / BLOCK - first][n * stride / BLOCK] += weight;
        }
    }
    let cut = |(i, row): (usize, &Vec<f64>)| {
        let diagonal = first + i;
        let required = threshold * row.iter().sum::<f64>();
        let mut cut = Cut::all([0, diagonal].into_iter());
        let forced: f64 = cut.must.iter().map(|&c| row[c]).sum();
        let candidates: Vec<usize> = (1..diagonal).collect();
        let others: Vec<f64> = candidates.iter().map(|&c| row[c]).collect();
        for (i, &c) in candidates.iter().enumerate() {
            let [least, largest] = before(&others, i);
            let must = forced + largest < required * (1.0 - EPSILON);
            let may = forced + least < required * (1.0 + EPSILON);
            cut.add(c, must, may);
        }
        cut
    };
    let cuts: Vec<Cut> = scores.iter().enumerate().map(cut).collect();
    by_tile(&span, &cuts)
}

fn flash_prefill(
    view: &View,
    heads: std::ops::Range<usize>,
    alpha: f64,
    tile: usize,
    window: usize,
) -> Kept {
    let span = view.span;
    let pooled: Vec<Vec<f64>> = (0..view.blocks())
        .map(|c| view.pooled_key(heads.start, c))
        .collect();
    let last_blocks = span.prompt_len.div_ceil(BLOCK).saturating_sub(2);
    let cut = |t: usize| {
        let rows = (t * tile).max(span.offset())..((t + 1) * tile).min(span.kv_len);
        let diagonal = rows.start / BLOCK;
        if diagonal >= last_blocks {
            return Cut::all(0..=diagonal);
        }
        // Logits of the rows at or after a block's last token, by block.
        let logits: Vec<Vec<f64>> = (0..=diagonal)
            .map(|c| {
                let end = ((c + 1) * BLOCK).min(span.kv_len) - 1;
                let pairs = heads
                    .clone()
                    .flat_map(|h| rows.clone().map(move |p| (h, p)));
                pairs
                    .filter(|&(_, p)| p >= end)
                    .map(|(h, p)| dot(view.query(h, p), &pooled[c]))
                    .collect()
            })
            .collect();
        let largest = logits
            .iter()
            .flatten()
            .copied()
            .fold(f64::NEG_INFINITY, f64::max);
        let energy = |z: &Vec<f64>| z.iter().map(|z| (z - largest).exp()).sum::<f64>();
        let energies: Vec<f64> = logits.iter().map(energy).collect();
        let most = energies.iter().copied().fold(0.0, f64::max);
        let mut cut = Cut::default();
        for (c, &e) in energies.iter().enumerate() {
            let forced = c < 2 || c + window >= diagonal;
            let must = e > 0.0 && e * (1.0 - EPSILON) >= alpha * most * (1.0 + EPSILON);
            let may = e > 0.0 && e * (1.0 + EPSILON) >= alpha * most * (1.0 - EPSILON);
            cut.add(c, forced || must, may);
        }
        cut
    };
    let tiles = span.offset() / tile..span.kv_len.div_ceil(tile);
    let cuts: Vec<Cut> = tiles.map(cut).collect();
    match tile {
        BLOCK => by_tile(&span, &cuts),
        _ => Kept::Blocks(cuts),
    }
}
