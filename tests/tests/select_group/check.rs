//! Checks of outputs against f64 and against the CPU.

use burn::tensor::DType;
use cubecl::client::Client;
use sparse_accelerate::select::cpu::group::{self as cpu, GroupInputs};
use sparse_accelerate_contract::{
    QUERY_TILE, Report, Sequence,
    group::{self as contract, GroupWords, LEVELS, MEAN_BLOCK, MEASURES, Measure},
};
use sparse_accelerate_tests::{launches, problem::round};

use super::case::{Case, Found, UNTOUCHED};

/// Relative error of a share: that of its exponent, a sum of f32 products of some tens; and for mean queries that
/// fall on the other side of a rounding.
const TOLERANCE: f64 = 1e-3;
impl Case {
    /// Blocks of which the tile's last row sees a key, from the one that holds the first row's first.
    fn candidates(&self, b: usize, tile: usize) -> std::ops::Range<usize> {
        let (rows, keys) = self.spans[b];
        let first = keys - rows + tile * QUERY_TILE;
        let end = (first + QUERY_TILE).min(keys);
        match tile * QUERY_TILE < rows {
            true => self.shape().visible.first(first) / MEAN_BLOCK..end.div_ceil(MEAN_BLOCK),
            false => 0..0,
        }
    }

    /// Checks it for groups and for heads alone.
    pub(crate) fn check(&self) {
        for alone in [false, true] {
            let case = Self {
                alone,
                ..self.clone()
            };
            case.check_as_it_is();
        }
    }

    pub(crate) fn check_as_it_is(&self) {
        launches::each_device(|name, client, dtype| self.on(name, client, dtype));
    }

    fn on(&self, name: &str, client: &Client, dtype: DType) {
        let name = format!(
            "{name}/{dtype:?}/{:?}/{:?}/{}",
            self.spans, self.window, self.alone
        );
        let inputs = self.inputs(dtype);
        let found = self.run(client, dtype, &inputs);
        let shape = self.shape();
        let [query, key, _] = &inputs;
        let (d, heads) = (self.head_dim, shape.heads_per_index());
        let per_kv = shape.index_heads / shape.kv_heads;
        let (blocks, tiles) = (contract::blocks(&shape), shape.tiles());
        let capacity = blocks + 1;
        let each = QUERY_TILE / found.parts;
        let epsilon = epsilon(dtype);
        let row = |of: &[f32], at: usize| -> Vec<f64> {
            of[at * d..][..d].iter().map(|&x| f64::from(x)).collect()
        };
        let mean = |of: &[f32], from: usize, count: usize| -> Vec<f64> {
            let sums = (from..from + count).map(|at| row(of, at));
            let sum = sums.fold(vec![0.0; d], |sum, row| {
                sum.iter().zip(row).map(|(a, b)| a + b).collect()
            });
            sum.iter().map(|x| x / count as f64).collect()
        };
        let dot = |a: &[f64], b: &[f64]| -> f64 {
            let products = a.iter().zip(b).map(|(a, b)| a * b);
            products.sum::<f64>() * f64::from(shape.scale)
        };
        let mut shares = found.shares.clone();
        for flat in 0..shape.batch * shape.kv_heads {
            let keys = self.spans[flat / shape.kv_heads].1;
            for block in 0..capacity {
                let got = &found.means[(flat * capacity + block) * d..][..d];
                let from = block * MEAN_BLOCK;
                if from >= keys {
                    assert!(
                        got.iter().all(|x| x.is_nan()),
                        "{name}: mean {block} of nothing"
                    );
                    continue;
                }
                let want = mean(key, flat * shape.keys + from, MEAN_BLOCK.min(keys - from));
                for (got, want) in got.iter().zip(want) {
                    let off = (f64::from(*got) - want).abs();
                    assert!(
                        off <= epsilon * want.abs() + 1e-5,
                        "{name}: {got} for {want}"
                    );
                }
            }
        }
        for flat in 0..shape.indexes() {
            let (b, index_head) = (flat / shape.index_heads, flat % shape.index_heads);
            let rows = self.spans[b].0;
            for tile in 0..tiles {
                let at = (flat * tiles + tile) * blocks;
                let candidates = self.candidates(b, tile);
                let count = QUERY_TILE.min(rows.saturating_sub(tile * QUERY_TILE));
                let mut want = vec![0.0; candidates.len()];
                for head in index_head * heads..(index_head + 1) * heads {
                    if candidates.is_empty() {
                        break;
                    }
                    let from = (b * shape.heads + head) * shape.rows + tile * QUERY_TILE;
                    let mut largest = vec![0f64; want.len()];
                    for first in (0..count).step_by(each) {
                        let rows = each.min(count - first);
                        let q = mean(query, from + first, rows);
                        let rounded = |x: &f64| f64::from(round(*x as f32, dtype));
                        let q: Vec<f64> = q.iter().map(rounded).collect();
                        let of_mean =
                            |block| dot(&q, &row(&found.means, flat / per_kv * capacity + block));
                        let logits: Vec<f64> = candidates.clone().map(of_mean).collect();
                        for (largest, share) in largest.iter_mut().zip(softmax(&logits)) {
                            *largest = largest.max(share);
                        }
                    }
                    for (want, largest) in want.iter_mut().zip(largest) {
                        *want += largest / heads as f64;
                    }
                }
                for block in 0..blocks {
                    let got = f64::from(shares[at + block]);
                    if candidates.contains(&block) {
                        let want = want[block - candidates.start];
                        let off = (got - want).abs();
                        assert!(
                            off <= (TOLERANCE + epsilon) * want,
                            "{name}: head {index_head}, tile {tile}, block {block}: {got} for {want}"
                        );
                    } else {
                        assert!(got.is_nan(), "{name}: a share of no candidate");
                        shares[at + block] = 0.0;
                    }
                }
            }
        }

        let [spans, probes, rules] = self.tables();
        let beside = GroupInputs {
            spans: &spans,
            probes: &probes,
            rules: &rules,
        };
        assert_eq!(
            found.cuts,
            cpu::cuts(&shape, &beside, &shares),
            "{name}: cuts"
        );
        let lengths = GroupWords::new(&shape);
        let mut table = vec![UNTOUCHED; lengths.table];
        let mut report = vec![f32::from_bits(UNTOUCHED); lengths.report];
        let of = (&shares[..], &found.cuts[..], &found.measured[..]);
        cpu::index(&shape, &beside, of, &mut table, &mut report);
        assert_eq!(found.table, table, "{name}: table");
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        // Sums over sampled rows have another order.
        let report_words = contract::report_words(&shape);
        for (got, want) in found
            .report
            .chunks(report_words)
            .zip(report.chunks_mut(report_words))
        {
            for word in [Report::RECALL, Report::ERROR] {
                let off = (got[word] - want[word]).abs();
                assert!(off <= 1e-4 * want[word].abs(), "{name}: word {word}");
                want[word] = got[word];
            }
        }
        assert_eq!(bits(&found.report), bits(&report), "{name}: report");

        self.check_rows(&name, dtype, &inputs, (&found, &shares), &probes);
        let again = self.run(client, dtype, &inputs);
        assert_eq!(
            bits(&found.report),
            bits(&again.report),
            "{name}: two runs differ"
        );
    }

    /// Checks what each level changes in the sampled rows, by the cuts that were found.
    fn check_rows(
        &self,
        name: &str,
        dtype: DType,
        [query, key, value]: &[Vec<f32>; 3],
        (found, shares): (&Found, &[f32]),
        probes: &[u32],
    ) {
        let shape = self.shape();
        let (d, heads) = (self.head_dim, shape.heads_per_index());
        let per_kv = shape.index_heads / shape.kv_heads;
        let (blocks, tiles) = (contract::blocks(&shape), shape.tiles());
        let epsilon = epsilon(dtype);
        let row = |of: &[f32], at: usize| -> Vec<f64> {
            of[at * d..][..d].iter().map(|&x| f64::from(x)).collect()
        };
        let dot = |a: &[f64], b: &[f64]| -> f64 {
            let products = a.iter().zip(b).map(|(a, b)| a * b);
            products.sum::<f64>() * f64::from(shape.scale)
        };
        let samples = contract::samples(&shape);
        for (at, got) in found.measured.chunks(MEASURES).enumerate() {
            let (head, sample) = (at / samples, at % samples);
            let (b, flat) = (head / shape.heads, head / heads);
            let (rows, keys) = self.spans[b];
            let probed = Sequence::of(probes, b).query_len;
            let r = contract::sampled_row(sample, samples, probed);
            let (tile, position) = (r / QUERY_TILE, keys - rows + r);
            let first = keys - rows + tile * QUERY_TILE;
            let (sink, local) = (self.local.0 as usize, self.local.1 as usize);
            let sinks = sink.div_ceil(MEAN_BLOCK);
            let keeps = |block: usize, level: usize| {
                let cut = found.cuts[(flat * tiles + tile) * LEVELS + level];
                let share = shares[(flat * tiles + tile) * blocks + block];
                block < sinks
                    || (block + 1) * MEAN_BLOCK > (first + 1).saturating_sub(local)
                    || contract::rank(share.to_bits()) >= cut
            };
            let q = row(query, head * shape.rows + r);
            let seen = shape.visible.first(position)..position + 1;
            let of_kv = flat / per_kv * shape.keys;
            let logits: Vec<f64> = seen
                .clone()
                .map(|j| dot(&q, &row(key, of_kv + j)))
                .collect();
            let masses = softmax(&logits);
            // Mass, mass outside the sinks and output of what is kept.
            let attend = |keeps: &dyn Fn(usize) -> bool| {
                let (mut mass, mut outside, mut out) = (0.0, 0.0, vec![0.0; d]);
                for (j, p) in seen.clone().zip(&masses) {
                    let block = j / MEAN_BLOCK;
                    if keeps(block) {
                        mass += p;
                        outside += if block < sinks { 0.0 } else { *p };
                        let v = row(value, of_kv + j);
                        out.iter_mut().zip(v).for_each(|(sum, x)| *sum += p * x);
                    }
                }
                out.iter_mut().for_each(|x| *x /= mass);
                (outside, out)
            };
            let near = |word: usize, want: f64, limit: f64| {
                let off = (f64::from(got[word]) - want).abs();
                assert!(
                    off < limit,
                    "{name}: head {head}, sample {sample}, word {word}: {} for {want}",
                    got[word]
                );
            };
            let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>();
            let (outside, out) = attend(&|_| true);
            near(Measure::OUTSIDE, outside, 2e-3);
            let rounding = 2.0 * epsilon * (d as f64).sqrt() + 1e-4;
            let near_norm = |word: usize, want: f64| {
                let off = (f64::from(got[word]).sqrt() - want.sqrt()).abs();
                assert!(
                    off < rounding,
                    "{name}: head {head}, sample {sample}, word {word}: {} for {want}",
                    got[word]
                );
            };
            near_norm(Measure::OUTPUT, norm(&out));
            for level in 0..LEVELS {
                let (outside, kept) = attend(&|block| keeps(block, level));
                near(Measure::KEPT + level, outside, 2e-3);
                let off: Vec<f64> = kept.iter().zip(&out).map(|(a, b)| a - b).collect();
                near_norm(Measure::ERRORS + level, norm(&off));
            }
        }
    }
}

/// Relative rounding of an element type.
fn epsilon(dtype: DType) -> f64 {
    match dtype {
        DType::BF16 => 1.0 / 256.0,
        DType::F16 => 1.0 / 2048.0,
        _ => 1e-6,
    }
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = logits.iter().map(|z| (z - highest).exp()).sum();
    logits.iter().map(|z| (z - highest).exp() / total).collect()
}
