//! One choice of key blocks for the query heads of an index head, by the mass that they give the blocks together:
//! the formulas of the kernels' stage of that name.

use rayon::prelude::*;
use sparse_accelerate_contract::{
    Choice, IndexRow, QUERY_TILE, REPORT_WORDS, RULE_WORDS, Report, Rules, Sequence, Shape, Why,
    group::{self, BASE, BINS, LEVELS, MEAN_BLOCK, MEASURES, Measure, TAIL_WORDS, WILD},
    table::{RANGE_WORDS, ROW_WORDS, SPARSE},
};
use sparse_accelerate_cpu::FlexFloat;

use super::{
    View,
    fixed::{ONE, fixed, scaled, score, share},
};

/// Bits of a share's unit, 2^-24.
const BITS: i32 = 24;
/// The same for sums of shares.
const SUM_BITS: i32 = 28;

/// Inputs of the stages beside tensors.
#[derive(Debug, Clone, Copy)]
pub struct GroupInputs<'a> {
    /// `[B, 4]`: new rows, keys, first position that sees everything, 0.
    pub spans: &'a [u32],
    /// The same for the rows that are sampled.
    pub probes: &'a [u32],
    /// `[Hi, 8]`.
    pub rules: &'a [u32],
}

/// Outputs of a choice, as the kernels lay them out.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// `[B, Hi, tiles, blocks]`; 0 where a tile has no candidate.
    pub shares: Vec<f32>,
    /// `[B, Hi, tiles, LEVELS]`.
    pub cuts: Vec<u32>,
    /// `[B, Hq, samples, MEASURES]`.
    pub measured: Vec<f32>,
    /// [`group::table`].
    pub table: Vec<u32>,
    /// `[B * Hi, group::report_words]`.
    pub report: Vec<f32>,
}

/// Means the key blocks that overlap the new rows into `means` `[B, Hk, capacity, d]`; other blocks are left.
pub fn means<E: FlexFloat>(
    shape: &Shape,
    key: View<'_, E>,
    spans: &[u32],
    means: &mut [E],
    capacity: usize,
) {
    let d = shape.head_dim;
    let items = means.par_chunks_exact_mut(d).enumerate();
    items.for_each_init(Vec::new, |rows, (item, out)| {
        let (flat, block) = (item / capacity, item % capacity);
        let at = (flat / shape.kv_heads, flat % shape.kv_heads);
        let sequence = Sequence::of(spans, at.0);
        let start = block * MEAN_BLOCK;
        let end = (start + MEAN_BLOCK).min(sequence.kv_len);
        if start >= sequence.kv_len || end <= sequence.offset() {
            return;
        }
        let (keys, stride) = key.wide(at, start..end, d, rows);
        let mean = mean(keys, stride, end - start, d);
        E::narrow_all(&mean, out);
    });
}

/// Chooses: shares, cuts, what they change in the sampled rows, the index and its report. `means` as [`means()`] leaves it.
pub fn choose<E: FlexFloat>(
    shape: &Shape,
    query: View<'_, E>,
    (key, value): (View<'_, E>, View<'_, E>),
    means: &[E],
    capacity: usize,
    inputs: &GroupInputs<'_>,
) -> Group {
    let (blocks, tiles) = (group::blocks(shape), shape.tiles());
    let lengths = group::GroupWords::new(shape);
    let mut shares = vec![0.0; lengths.shares];
    let rows = shares.par_chunks_exact_mut(blocks).enumerate();
    rows.for_each(|(row, shares)| {
        let (flat, tile) = (row / tiles, row % tiles);
        let kv_flat = flat / (shape.index_heads / shape.kv_heads);
        let means = &means[kv_flat * capacity * shape.head_dim..][..capacity * shape.head_dim];
        let tile = Tile::new(shape, inputs, flat, tile);
        tile.share(shape, query, means, flat, shares);
    });
    let cuts = cuts(shape, inputs, &shares);

    let samples = group::samples(shape);
    let mut measured = vec![0.0; lengths.measured];
    let rows = measured.par_chunks_exact_mut(MEASURES).enumerate();
    rows.for_each(|(at, words)| {
        let (head, sample) = (at / samples, at % samples);
        let flat = head / shape.heads_per_index();
        let probed = Sequence::of(inputs.probes, flat / shape.index_heads).query_len;
        if probed == 0 {
            return;
        }
        let row = group::sampled_row(sample, samples, probed);
        let at = flat * tiles + row / QUERY_TILE;
        let tile = Tile::new(shape, inputs, flat, row / QUERY_TILE);
        let (shares, cuts) = (
            &shares[at * blocks..][..blocks],
            &cuts[at * LEVELS..][..LEVELS],
        );
        let rows = (query, key, value);
        tile.measure(shape, rows, (head, row), (shares, cuts), words);
    });

    let mut table = vec![0; lengths.table];
    let mut report = vec![0.0; lengths.report];
    index(
        shape,
        inputs,
        (&shares, &cuts, &measured),
        &mut table,
        &mut report,
    );
    Group {
        shares,
        cuts,
        measured,
        table,
        report,
    }
}

/// Finds where each level cuts the shares of every tile.
pub fn cuts(shape: &Shape, inputs: &GroupInputs<'_>, shares: &[f32]) -> Vec<u32> {
    let (blocks, tiles) = (group::blocks(shape), shape.tiles());
    let cut = |(row, shares): (usize, &[f32])| {
        let (flat, tile) = (row / tiles, row % tiles);
        let rule = Rules::of(inputs.rules, flat % shape.index_heads);
        Tile::new(shape, inputs, flat, tile).cut(&rule, shares)
    };
    let rows = shares.par_chunks_exact(blocks).enumerate();
    rows.flat_map_iter(cut).collect()
}

/// Writes the index and the reports from what the other stages found.
pub fn index(
    shape: &Shape,
    inputs: &GroupInputs<'_>,
    (shares, cuts, measured): (&[f32], &[u32], &[f32]),
    table: &mut [u32],
    report: &mut [f32],
) {
    let (blocks, tiles) = (group::blocks(shape), shape.tiles());
    let at = group::table(shape);
    let parts = at.split(table);
    parts.spans.copy_from_slice(&inputs.spans[..at.rows_at]);
    parts.gates.fill(SPARSE);
    for (flat, report) in report
        .chunks_exact_mut(group::report_words(shape))
        .enumerate()
    {
        let rule = Rules::of(inputs.rules, flat % shape.index_heads);
        let level = Level::of(&rule, shape, measured, flat);
        let (head, tail) = report.split_at_mut(REPORT_WORDS);
        head.copy_from_slice(&level.words());
        for (tile_at, tail) in tail.chunks_exact_mut(TAIL_WORDS).enumerate() {
            let row = flat * tiles + tile_at;
            let tile = Tile::new(shape, inputs, flat, tile_at);
            let dense_from = Sequence::of(inputs.spans, flat / shape.index_heads).dense_from;
            let cut = match tile.end > dense_from {
                true => None,
                false => level.number.map(|level| cuts[row * LEVELS + level]),
            };
            let shares = &shares[row * blocks..][..blocks];
            let keeps = |block: usize| cut.is_none_or(|cut| tile.keeps(block, shares[block], cut));
            let ranges = &mut parts.ranges[row * at.range_stride..][..at.range_stride];
            let (mut runs, mut pairs, mut count) = (0, 0, 0);
            let mut last = usize::MAX;
            for block in (tile.low..tile.high).filter(|&block| keeps(block)) {
                let (from, to) = (block * MEAN_BLOCK, ((block + 1) * MEAN_BLOCK).min(tile.end));
                if last.wrapping_add(1) != block || runs == 0 {
                    ranges[runs * RANGE_WORDS] = from as u32;
                    runs += 1;
                }
                ranges[runs * RANGE_WORDS - 1] = to as u32;
                last = block;
                count += 1;
                let seen = |position| shape.visible.seen(position, from, to);
                pairs += (tile.first..tile.end).map(seen).sum::<usize>();
            }
            let entry = IndexRow {
                columns_at: 0,
                ..at.row(row, runs, 0)
            };
            parts.rows[row * ROW_WORDS..][..ROW_WORDS].copy_from_slice(&entry.words());
            tail.copy_from_slice(&[pairs as f32, count as f32]);
        }
    }
}

/// The level at which the sampled rows of a head are within the error.
struct Level {
    /// `None` for every key.
    number: Option<usize>,
    why: Why,
    aimed: f32,
    recall: f32,
    error: f32,
}

impl Level {
    /// Errors are relative to the layer's mean head:
    /// `error^2 = (sum of |o_l - o|^2 over the index head's H heads) / H / (sum of |o|^2 over all Hq heads) Hq`.
    fn of(rule: &Rules, shape: &Shape, measured: &[f32], flat: usize) -> Self {
        let own = shape.heads_per_index() * group::samples(shape);
        let all = shape.index_heads * own;
        let sum = |from: usize, count: usize, word: usize| {
            let rows = measured[from * MEASURES..][..count * MEASURES].iter();
            rows.skip(word).step_by(MEASURES).sum::<f32>()
        };
        let of_head = |word| sum(flat * own, own, word);
        let output = sum(flat / shape.index_heads * all, all, Measure::OUTPUT);
        let outside = of_head(Measure::OUTSIDE);
        let mut level = Self {
            number: None,
            why: Why::ErrorAboveLimit,
            aimed: 1.0,
            recall: 1.0,
            error: 0.0,
        };
        for number in 0..LEVELS {
            let off = of_head(Measure::ERRORS + number);
            if outside > 0.0 {
                level.recall = of_head(Measure::KEPT + number) / outside;
            }
            let scaled = off * shape.index_heads as f32;
            level.error = match output > 0.0 {
                true => (scaled / output).sqrt(),
                false => 0.0,
            };
            if off >= WILD {
                // Nothing was measured of what is not finite.
                (level.why, level.error, level.recall) = (Why::NotFinite, 0.0, 1.0);
            } else if level.error <= rule.accepted {
                level.number = Some(number);
                level.why = match number {
                    0 => Why::MassHeld,
                    _ => Why::MassRaised,
                };
                level.aimed = share(aim(rule, number));
                break;
            }
        }
        level
    }

    /// The words of a report.
    fn words(&self) -> [f32; REPORT_WORDS] {
        let choice = match self.number {
            Some(_) => Choice::GroupBlocks,
            None => Choice::Dense,
        };
        let mut words = [0.0; REPORT_WORDS];
        words[Report::CHOICE] = choice.number() as f32;
        words[Report::WHY] = self.why.number() as f32;
        words[Report::PREDICTED_RECALL] = self.aimed;
        words[Report::RECALL] = self.recall;
        words[Report::ERROR] = self.error;
        words
    }
}

/// The mass that a level aims at, in units of 2^-24.
fn aim(rule: &Rules, level: usize) -> u32 {
    ONE - ((ONE - fixed(score(rule.floor), BITS)) >> level)
}

/// A query tile of an index head and the blocks that are its candidates.
struct Tile {
    /// First row, first position, end of the positions.
    row: usize,
    first: usize,
    end: usize,
    /// Candidates.
    low: usize,
    high: usize,
    sinks: usize,
    local: usize,
}

impl Tile {
    fn new(shape: &Shape, inputs: &GroupInputs<'_>, flat: usize, tile: usize) -> Self {
        let sequence = Sequence::of(inputs.spans, flat / shape.index_heads);
        let head = flat % shape.index_heads;
        let rule = Rules::of(&inputs.rules[head * RULE_WORDS..][..RULE_WORDS], 0);
        let (sink, window) = rule.local();
        let row = tile * QUERY_TILE;
        let first = sequence.offset() + row;
        let end = match row < sequence.query_len {
            true => sequence.offset() + (row + QUERY_TILE).min(sequence.query_len),
            false => 0,
        };
        Self {
            row,
            first,
            end,
            low: shape.visible.first(first) / MEAN_BLOCK,
            high: end.div_ceil(MEAN_BLOCK),
            sinks: sink.div_ceil(MEAN_BLOCK),
            local: (first + 1).saturating_sub(window) / MEAN_BLOCK,
        }
    }

    fn forced(&self, block: usize) -> bool {
        block < self.sinks || block >= self.local
    }

    fn keeps(&self, block: usize, share: f32, cut: u32) -> bool {
        self.forced(block) || group::rank(score(share).to_bits()) >= cut
    }

    /// Writes the shares of the candidates.
    fn share<E: FlexFloat>(
        &self,
        shape: &Shape,
        query: View<'_, E>,
        means: &[E],
        flat: usize,
        shares: &mut [f32],
    ) {
        if self.low >= self.high {
            return;
        }
        let (d, heads) = (shape.head_dim, shape.heads_per_index());
        let (b, index_head) = (flat / shape.index_heads, flat % shape.index_heads);
        let rows = self.row..self.row + (self.end - self.first);
        let mut scratch = Vec::new();
        let mut keys = vec![0.0; (self.high - self.low) * d];
        E::widen_all(&means[self.low * d..self.high * d], &mut keys);
        let each = QUERY_TILE / group::parts(shape);
        for head in index_head * heads..(index_head + 1) * heads {
            let (wide, stride) = query.wide((b, head), rows.clone(), d, &mut scratch);
            let mut largest = vec![0.0f32; keys.len() / d];
            for first in (0..rows.len()).step_by(each) {
                let count = each.min(rows.len() - first);
                let mean = mean(&wide[first * stride..], stride, count, d);
                // Mean queries have the precision of queries.
                let mean: Vec<f32> = mean.iter().map(|&x| E::narrow(x).widen()).collect();
                let dots = keys.chunks_exact(d);
                let z: Vec<f32> = dots.map(|key| dot(&mean, key) * shape.scale).collect();
                let highest = z.iter().copied().fold(f32::MIN, f32::max);
                let total: f32 = z.iter().map(|z| (z - highest).exp()).sum();
                for (largest, z) in largest.iter_mut().zip(&z) {
                    *largest = largest.max((z - highest).exp() / total);
                }
            }
            for (share, largest) in shares[self.low..self.high].iter_mut().zip(largest) {
                *share += largest / heads as f32;
            }
        }
    }

    /// Finds the lowest rank that each level keeps.
    fn cut(&self, rule: &Rules, shares: &[f32]) -> [u32; LEVELS] {
        let mut cuts = [0; LEVELS];
        let mut bins = [0u32; BINS];
        let mut forced = 0u32;
        let candidates = shares.iter().enumerate().take(self.high).skip(self.low);
        for (block, share) in candidates.filter(|(block, _)| *block >= self.sinks) {
            let clean = score(*share);
            let sum = match block >= self.local {
                true => &mut forced,
                false => &mut bins[group::bin(clean.to_bits()) as usize],
            };
            *sum = sum.wrapping_add(fixed(clean, SUM_BITS));
        }
        let total = bins.iter().copied().fold(forced, u32::wrapping_add);
        for (level, cut) in cuts.iter_mut().enumerate() {
            let needed = scaled(aim(rule, level), total);
            let (mut kept, mut bin) = (forced, BINS);
            while kept < needed && bin > 0 {
                bin -= 1;
                kept = kept.wrapping_add(bins[bin]);
            }
            *cut = match bin {
                _ if total == 0 => 0,
                0 => 0,
                BINS => u32::MAX,
                bin => bin as u32 + BASE,
            };
        }
        cuts
    }

    /// Writes the words of a [`Measure`]: of a row of a query head.
    fn measure<E: FlexFloat>(
        &self,
        shape: &Shape,
        (query, key, value): (View<'_, E>, View<'_, E>, View<'_, E>),
        (head, row): (usize, usize),
        (shares, cuts): (&[f32], &[u32]),
        words: &mut [f32],
    ) {
        let d = shape.head_dim;
        let (b, head) = (head / shape.heads, head % shape.heads);
        let kv_head = head / shape.heads_per_kv();
        let position = self.first + (row - self.row);
        let from = shape.visible.first(position);
        let (mut query_rows, mut key_rows, mut value_rows) = (Vec::new(), Vec::new(), Vec::new());
        let seen = from..position + 1;
        let (keys, stride) = key.wide((b, kv_head), seen.clone(), d, &mut key_rows);
        let (values, value_stride) = value.wide((b, kv_head), seen.clone(), d, &mut value_rows);
        let (q, _) = query.wide((b, head), row..row + 1, d, &mut query_rows);
        let logits: Vec<f32> = (0..seen.len())
            .map(|j| dot(q, &keys[j * stride..][..d]) * shape.scale)
            .collect();
        if !logits.iter().all(|logit| logit.is_finite()) {
            return words[..LEVELS].fill(WILD);
        }
        let highest = logits.iter().copied().fold(f32::MIN, f32::max);
        // Of what each level keeps, and of all: masses, outputs, masses outside the sinks.
        let mut mass = [0.0; LEVELS + 1];
        let mut beyond = [0.0; LEVELS + 1];
        let mut outputs = vec![0.0; (LEVELS + 1) * d];
        for (j, logit) in logits.iter().enumerate() {
            let p = (logit - highest).exp();
            let block = (from + j) / MEAN_BLOCK;
            for level in 0..=LEVELS {
                if level < LEVELS && !self.keeps(block, shares[block], cuts[level]) {
                    continue;
                }
                mass[level] += p;
                if block >= self.sinks {
                    beyond[level] += p;
                }
                let value = &values[j * value_stride..][..d];
                for (sum, x) in outputs[level * d..][..d].iter_mut().zip(value) {
                    *sum += p * x;
                }
            }
        }
        let output = |level: usize| {
            let sum = mass[level];
            let over = move |x: &f32| if sum > 0.0 { x / sum } else { 0.0 };
            outputs[level * d..][..d].iter().map(over)
        };
        words[Measure::OUTPUT] = output(LEVELS).map(|x| x * x).sum();
        words[Measure::OUTSIDE] = beyond[LEVELS] / mass[LEVELS];
        for level in 0..LEVELS {
            let off = output(level).zip(output(LEVELS));
            words[Measure::ERRORS + level] = off.map(|(a, b)| (a - b) * (a - b)).sum();
            words[Measure::KEPT + level] = beyond[level] / mass[LEVELS];
        }
        if !words.iter().all(|word| word.is_finite()) {
            words.fill(0.0);
            words[..LEVELS].fill(WILD);
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Mean of rows, in their order.
fn mean(rows: &[f32], stride: usize, count: usize, d: usize) -> Vec<f32> {
    let mut mean = vec![0.0; d];
    for row in 0..count {
        let from = &rows[row * stride..][..d];
        for (sum, &x) in mean.iter_mut().zip(from) {
            *sum += x;
        }
    }
    let share = 1.0 / count as f32;
    mean.iter_mut().for_each(|sum| *sum *= share);
    mean
}
