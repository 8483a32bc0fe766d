//! One choice of key blocks for a group of query heads, those of a KV head or one: mean keys, shares, measured errors and masses against
//! f64, cuts, index and report equal to the CPU's bit for bit. Outputs are filled with NaN; so is what no stage may read.
#![cfg(any(feature = "wgpu", feature = "cuda-runtime"))]

use burn::tensor::DType;
use cubecl::{client::Client, ir::AddressType};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sparse_accelerate::select::cpu::group::{self as cpu, GroupInputs};
use sparse_accelerate_contract::{
    Choice, QUERY_TILE, Report, Rules, Sequence, Shape, Visible, Why,
    group::{self as contract, GroupWords, LEVELS, MEAN_BLOCK, MEASURES, Measure},
    table,
};
use sparse_accelerate_kernels::select::{View, group};
use sparse_accelerate_tests::{
    launches::{self, BEYOND},
    problem::round,
};

/// Relative error of a share: that of its exponent, a sum of f32 products of some tens; and for mean queries that
/// fall on the other side of a rounding.
const TOLERANCE: f64 = 1e-3;
/// A NaN that no kernel writes.
const UNTOUCHED: u32 = 0xffc0_1234;

/// One problem; `spans` are new rows and all keys of every sequence.
#[derive(Clone)]
struct Case {
    heads: [usize; 2],
    /// Every query head chooses, not all of a KV head together.
    alone: bool,
    head_dim: usize,
    spans: Vec<(usize, usize)>,
    window: Option<u32>,
    local: (u32, u32),
    /// Recall that is aimed at, and the largest error.
    recall: (f32, f32),
    /// Last rows that see everything.
    last: usize,
    /// How large logits are.
    magnitude: f32,
    /// Logits of all queries and the first 40 keys beside that.
    lean: f32,
}

/// Outputs of the kernels.
struct Found {
    /// Mean queries of a query tile and head.
    parts: usize,
    means: Vec<f32>,
    shares: Vec<f32>,
    cuts: Vec<u32>,
    measured: Vec<f32>,
    table: Vec<u32>,
    report: Vec<f32>,
}

impl Case {
    fn shape(&self) -> Shape {
        let [heads, kv_heads] = self.heads;
        Shape {
            batch: self.spans.len(),
            heads,
            kv_heads,
            index_heads: if self.alone { heads } else { kv_heads },
            rows: self.spans.iter().map(|s| s.0).max().unwrap_or(0),
            keys: self.spans.iter().map(|s| s.1).max().unwrap_or(0),
            head_dim: self.head_dim,
            scale: 1.0 / (self.head_dim as f32).sqrt(),
            visible: Visible::of(self.window),
        }
    }

    /// Queries, keys and values, rounded to the element type.
    fn inputs(&self, dtype: DType) -> [Vec<f32>; 3] {
        let (shape, d) = (self.shape(), self.head_dim);
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let mut normal = || (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0;
        let lean = (self.lean * (d as f32).sqrt()).sqrt();
        let mut fill = |heads: usize,
                        rows: usize,
                        size: f32,
                        leaning: usize,
                        has: &dyn Fn(usize, usize) -> bool| {
            let mut out = Vec::new();
            for b in 0..shape.batch {
                for _ in 0..heads {
                    // Neighbours are alike, so that blocks differ.
                    let mut drift: Vec<f32> = (0..d).map(|_| normal()).collect();
                    for row in 0..rows {
                        if row % 150 == 149 {
                            drift = (0..d).map(|_| normal()).collect();
                        }
                        for (i, at) in drift.iter().enumerate() {
                            let leans = i == 0 && row < leaning;
                            let x = size * (0.8 * at + 0.6 * normal());
                            let x = round(if leans { x + lean } else { x }, dtype);
                            out.push(if has(b, row) { x } else { f32::NAN });
                        }
                    }
                }
            }
            out
        };
        let query = fill(
            shape.heads,
            shape.rows,
            self.magnitude,
            shape.rows,
            &|b, row| row < self.spans[b].0,
        );
        let key = fill(shape.kv_heads, shape.keys, 1.0, 40, &|b, row| {
            row < self.spans[b].1
        });
        let value = fill(shape.kv_heads, shape.keys, 1.0, 0, &|b, row| {
            row < self.spans[b].1
        });
        [query, key, value]
    }

    fn tables(&self) -> [Vec<u32>; 3] {
        let sequences = |probed: bool| {
            table::spans(self.spans.iter().map(move |&(rows, keys)| {
                let dense_from = keys - self.last.min(keys);
                let before = dense_from.saturating_sub(keys - rows);
                match probed {
                    true if before > 0 => Sequence::new(before.min(rows), keys - rows + before),
                    true => Sequence::new(rows, keys),
                    false => Sequence::new(rows, keys).dense_from(dense_from),
                }
            }))
        };
        let rule = Rules {
            allowed: Choice::Dense.bit(),
            sink: self.local.0,
            window: self.local.1,
            columns: 0,
            slashes: 0,
            floor: self.recall.0,
            accepted: self.recall.1,
            alpha: 0.0,
        };
        let rules = (0..self.shape().index_heads)
            .flat_map(|_| rule.words())
            .collect();
        [sequences(false), sequences(true), rules]
    }

    fn run(&self, client: &Client, dtype: DType, inputs: &[Vec<f32>; 3]) -> Found {
        let (shape, d, elem) = (self.shape(), self.head_dim, launches::elem(dtype));
        let [query, key, value] = inputs;
        let [spans, probes, rules] = self.tables();
        let capacity = contract::blocks(&shape) + 1;
        let key_dims = [shape.batch, shape.kv_heads, shape.keys, d];
        let key = launches::upload_as(client, key, dtype);
        let len = shape.batch * shape.kv_heads * capacity * d;
        let means = launches::upload_as(client, &vec![f32::NAN; len + BEYOND], dtype);
        // All keys are new to the means.
        let all: Vec<_> = self.spans.iter().map(|&(_, keys)| (keys, keys)).collect();
        let all = launches::span_table(&all);
        let tensors = group::means::Tensors {
            key: launches::tensor(&key, key_dims),
            spans: launches::buffer(&launches::upload(client, &all), all.len()),
            means: launches::buffer(&means, len),
            capacity,
            address: AddressType::U32,
        };
        let whole = Shape {
            rows: shape.keys,
            ..shape
        };
        group::means::launch(client, &whole, elem, tensors);

        let view = |handle, dims: [usize; 4]| View {
            handle,
            shape: dims,
            strides: [dims[1] * dims[2] * d, dims[2] * d, d, 1],
        };
        let query = launches::upload_as(client, query, dtype);
        let inputs = group::Inputs {
            query: view(query, [shape.batch, shape.heads, shape.rows, d]),
            key: view(key, key_dims),
            value: view(launches::upload_as(client, value, dtype), key_dims),
            means: means.clone(),
            capacity,
            spans: launches::upload(client, &spans),
            probes: launches::upload(client, &probes),
            rules: launches::upload(client, &rules),
            address: AddressType::U32,
        };
        let plan = group::prepare(&shape, elem, client.properties()).expect("a plan");
        let lengths = GroupWords::new(&shape);
        let untouched = |len: usize| launches::upload(client, &vec![UNTOUCHED; len + BEYOND]);
        let out = group::Chosen {
            table: untouched(lengths.table),
            report: untouched(lengths.report),
            shares: untouched(lengths.shares),
            cuts: untouched(lengths.cuts),
            measured: untouched(lengths.measured),
        };
        group::select(client, &shape, &plan, elem, &inputs, &out, &mut |_| {});
        let floats = |handle, len: usize, dtype| {
            let mut values = launches::read(client, handle, dtype);
            let beyond = values.split_off(len);
            assert!(beyond.iter().all(|x| x.is_nan()), "wrote past the end");
            values
        };
        let words = |handle, len: usize| {
            let bytes = client.read_one(handle).expect("the launch failed");
            let words: &[u32] = bytemuck::cast_slice(&bytes);
            assert!(
                words[len..].iter().all(|&x| x == UNTOUCHED),
                "wrote past the end"
            );
            words[..len].to_vec()
        };
        Found {
            parts: plan.parts(),
            means: floats(means, len, dtype),
            shares: floats(out.shares, lengths.shares, DType::F32),
            cuts: words(out.cuts, lengths.cuts),
            measured: floats(out.measured, lengths.measured, DType::F32),
            table: words(out.table, lengths.table),
            report: floats(out.report, lengths.report, DType::F32),
        }
    }

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
    fn check(&self) {
        for alone in [false, true] {
            let case = Self {
                alone,
                ..self.clone()
            };
            launches::each_device(|name, client, dtype| case.on(name, client, dtype));
        }
    }

    fn on(&self, name: &str, client: &Client, dtype: DType) {
        let name = format!(
            "{name}/{dtype:?}/{:?}/{:?}/{}",
            self.spans, self.window, self.alone
        );
        let inputs = self.inputs(dtype);
        let found = self.run(client, dtype, &inputs);
        let shape = self.shape();
        let [query, key, value] = &inputs;
        let (d, heads) = (self.head_dim, shape.heads_per_index());
        let per_kv = shape.index_heads / shape.kv_heads;
        let (blocks, tiles) = (contract::blocks(&shape), shape.tiles());
        let capacity = blocks + 1;
        let each = QUERY_TILE / found.parts;
        let epsilon = match dtype {
            DType::BF16 => 1.0 / 256.0,
            DType::F16 => 1.0 / 2048.0,
            _ => 1e-6,
        };
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
        let softmax = |logits: &[f64]| -> Vec<f64> {
            let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = logits.iter().map(|z| (z - highest).exp()).sum();
            logits.iter().map(|z| (z - highest).exp() / total).collect()
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

        // What each level changes in the sampled rows, by the cuts that were found.
        let samples = contract::samples(&shape);
        for (at, got) in found.measured.chunks(MEASURES).enumerate() {
            let (head, sample) = (at / samples, at % samples);
            let (b, flat) = (head / shape.heads, head / heads);
            let (rows, keys) = self.spans[b];
            let probed = Sequence::of(&probes, b).query_len;
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
        let again = self.run(client, dtype, &inputs);
        assert_eq!(
            bits(&found.report),
            bits(&again.report),
            "{name}: two runs differ"
        );
    }
}

fn case() -> Case {
    Case {
        heads: [4, 2],
        alone: false,
        head_dim: 64,
        spans: vec![(300, 1500), (1, 1000), (130, 131), (133, 700)],
        window: None,
        local: (64, 128),
        recall: (0.9, 0.2),
        last: 64,
        magnitude: 2.0,
        lean: 0.0,
    }
}

#[test]
fn a_ragged_batch_behind_prefixes() {
    case().check();
}

#[test]
fn groups_of_one_seven_and_many() {
    for (heads, head_dim, spans) in [
        ([2, 2], 32, vec![(520, 1500)]),
        ([7, 1], 128, vec![(260, 3000)]),
        ([17, 1], 40, vec![(200, 777)]),
        ([8, 4], 80, vec![(1000, 1000)]),
    ] {
        let case = Case {
            heads,
            head_dim,
            spans,
            ..case()
        };
        case.check();
    }
}

/// Windows that end inside a block, at its end, within the local keys, before them.
#[test]
fn windows_of_keys() {
    for window in [1, 50, 128, 200, 1399] {
        let case = Case {
            spans: vec![(300, 1500), (64, 900)],
            window: Some(window),
            ..case()
        };
        case.check();
    }
}

/// Sinks that hold nearly all of the mass count neither for the cut nor for what is measured.
#[test]
fn sinks_that_hold_nearly_all() {
    let case = Case {
        spans: vec![(300, 1500), (130, 131)],
        lean: 9.0,
        ..case()
    };
    case.check();
}

/// More blocks than a cube has units; a long chunk whose samples are many.
#[test]
fn many_blocks_and_many_samples() {
    let case = Case {
        heads: [2, 1],
        head_dim: 32,
        spans: vec![(65, 17000)],
        ..case()
    };
    case.check();
    let case = Case {
        spans: vec![(5000, 5200)],
        ..case
    };
    case.check();
}

/// Levels: one that holds, one that is raised, none.
#[test]
fn a_group_that_falls_short_keeps_more_and_then_everything() {
    for (name, client) in launches::clients() {
        let word = |recall: (f32, f32), magnitude, word: usize| {
            let case = Case {
                heads: [2, 1],
                spans: vec![(600, 2000)],
                recall,
                magnitude,
                ..case()
            };
            let inputs = case.inputs(DType::F32);
            case.run(&client, DType::F32, &inputs).report[word]
        };
        let why = |recall, magnitude| word(recall, magnitude, Report::WHY) as u32;
        assert_eq!(why((0.9, 10.0), 2.0), Why::MassHeld.number(), "{name}");
        let first = word((0.5, 10.0), 2.0, Report::ERROR);
        let raised = why((0.5, 0.999 * first), 2.0);
        assert_eq!(raised, Why::MassRaised.number(), "{name}");
        let none = why((0.5, 1e-5), 2.0);
        assert_eq!(none, Why::ErrorAboveLimit.number(), "{name}");
        assert_eq!(
            why((0.9, 0.5), f32::INFINITY),
            Why::NotFinite.number(),
            "{name}"
        );
    }
}

/// A value that is not finite makes the heads that see it dense, whatever its weight.
#[test]
fn values_that_are_not_finite_are_seen() {
    for (name, client) in launches::clients() {
        let case = Case {
            heads: [4, 2],
            alone: true,
            spans: vec![(600, 2000)],
            ..case()
        };
        let mut inputs = case.inputs(DType::F32);
        inputs[2][700 * case.head_dim + 3] = f32::INFINITY;
        let found = case.run(&client, DType::F32, &inputs);
        let words = contract::report_words(&case.shape());
        let whys = found
            .report
            .chunks(words)
            .map(|head| head[Report::WHY] as u32);
        let whys: Vec<u32> = whys.collect();
        assert_eq!(whys[..2], [Why::NotFinite.number(); 2], "{name}");
        assert!(!whys[2..].contains(&Why::NotFinite.number()), "{name}");
    }
}
