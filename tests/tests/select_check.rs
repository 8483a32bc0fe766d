//! Measured recall against f64, and which gates it opens.
#![cfg(any(feature = "wgpu", feature = "cuda-runtime"))]

use burn::tensor::DType;
use cubecl::client::Client;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sparse_accelerate_contract::{ROW_WORDS, SPAN_WORDS};
use sparse_accelerate_kernels::{
    attend::QUERY_TILE,
    select::{PROBES, REPORT_WORDS, RULE_WORDS, Rules, Shape, Visible, check},
};
use sparse_accelerate_tests::{launches, selection};

/// One call and what it left: table and report.
struct Case {
    shape: Shape,
    /// `(query_len, kv_len)`.
    spans: Vec<(usize, usize)>,
    gates: Vec<u32>,
    /// Allowed patterns and floor, per index head.
    rules: Vec<(u32, f32)>,
    lse: Vec<f32>,
    probe: Vec<f32>,
    kept: Vec<u32>,
}

impl Case {
    /// Shares of the probes between `low` and 1.
    fn new(spans: &[(usize, usize)], [heads, index_heads]: [usize; 2], low: f32) -> Self {
        let rows = spans.iter().map(|s| s.0).max().unwrap_or(0);
        let shape = Shape {
            batch: spans.len(),
            heads,
            kv_heads: index_heads,
            index_heads,
            rows,
            keys: spans.iter().map(|s| s.1).max().unwrap_or(0),
            head_dim: 64,
            scale: 1.0,
            visible: Visible::Causal,
        };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut uniform = |low: f32, high: f32| low + (high - low) * rng.random::<f32>();
        let lse: Vec<f32> = (0..spans.len() * heads * rows)
            .map(|_| uniform(-3.0, 60.0))
            .collect();
        let mut probe = Vec::new();
        for (b, &(n, _)) in spans.iter().enumerate() {
            for h in 0..heads {
                for r in 0..PROBES {
                    let of = |row| lse[(b * heads + h) * rows + row];
                    probe.push(row(n, r).map_or(0.0, |row| of(row) - uniform(low, 1.0).ln()));
                }
            }
        }
        let mut kept = Vec::new();
        for &(n, keys) in spans {
            for _ in 0..index_heads {
                for tile in 0..shape.tiles() {
                    let end = keys - n + n.min((tile + 1) * QUERY_TILE);
                    kept.push((uniform(0.0, 1.0) * end as f32) as u32);
                }
            }
        }
        Self {
            gates: vec![0; spans.len() * index_heads],
            rules: vec![(1, 0.0); index_heads],
            spans: spans.to_vec(),
            shape,
            lse,
            probe,
            kept,
        }
    }

    /// Least recall of an index head.
    fn recall(&self, b: usize, index_head: usize) -> f64 {
        let (s, n) = (self.shape, self.spans[b].0);
        let mut lowest = 1f64;
        for h in index_head * s.heads_per_index()..(index_head + 1) * s.heads_per_index() {
            for group in [0..PROBES / 2, PROBES / 2..PROBES] {
                let shares: Vec<f64> = group
                    .filter_map(|r| {
                        let of_all = self.probe[(b * s.heads + h) * PROBES + r];
                        let row = row(n, r)?;
                        let of_kept = self.lse[(b * s.heads + h) * s.rows + row];
                        Some((f64::from(of_kept) - f64::from(of_all)).exp())
                    })
                    .collect();
                if !shares.is_empty() {
                    lowest = lowest.min(shares.iter().sum::<f64>() / shares.len() as f64);
                }
            }
        }
        lowest
    }

    /// The same under a window, every tile with so large a part of its visible pairs as it had of its keys.
    fn under(mut self, window: u32) -> Self {
        self.shape.visible = Visible::of(Some(window));
        if self.shape.window().is_none() {
            return self;
        }
        let tiles = self.shape.tiles();
        for (i, kept) in self.kept.iter_mut().enumerate() {
            let (b, tile) = (i / tiles / self.shape.index_heads, i % tiles);
            let (n, keys) = self.spans[b];
            let rows = (tile * QUERY_TILE).min(n)..((tile + 1) * QUERY_TILE).min(n);
            let pairs: usize = rows.map(|i| (keys - n + i + 1).min(window as usize)).sum();
            let end = keys - n + n.min((tile + 1) * QUERY_TILE);
            *kept = (*kept as f64 / end.max(1) as f64 * pairs as f64) as u32;
        }
        self
    }

    fn density(&self, b: usize, index_head: usize) -> f64 {
        let (n, keys) = self.spans[b];
        let (mut kept, mut all) = (0.0, 0.0);
        if let Some(window) = self.shape.window() {
            let at = (b * self.shape.index_heads + index_head) * self.shape.tiles();
            let kept = &self.kept[at..at + n.div_ceil(QUERY_TILE)];
            let pairs = |i: usize| (keys - n + i + 1).min(window as usize) as f64;
            let all: f64 = (0..n).map(pairs).sum();
            let kept = kept.iter().map(|pairs| f64::from(*pairs)).sum::<f64>();
            return if all > 0.0 { kept / all } else { 1.0 };
        }
        for tile in 0..n.div_ceil(QUERY_TILE) {
            let end = n.min((tile + 1) * QUERY_TILE);
            let rows = (end - tile * QUERY_TILE) as f64;
            let at = (b * self.shape.index_heads + index_head) * self.shape.tiles() + tile;
            let missing = rows * (rows - 1.0) / 2.0;
            kept += rows * f64::from(self.kept[at]) - missing;
            all += rows * (keys - n + end) as f64 - missing;
        }
        if all > 0.0 { kept / all } else { 1.0 }
    }

    /// Gates and report after the launch; nothing else of the table may change.
    fn run(&self, client: &Client) -> (Vec<u32>, Vec<f32>) {
        let s = &self.shape;
        let mut words = launches::span_table(&self.spans);
        let probes = launches::upload(client, &words);
        words.resize(words.len() + s.indexes() * s.tiles() * ROW_WORDS, 77);
        let gates_at = words.len();
        words.extend(&self.gates);
        words.extend([78; 9]);
        let rules: Vec<u32> = self
            .rules
            .iter()
            .flat_map(|&(allowed, accepted)| {
                let rules = Rules {
                    allowed,
                    accepted,
                    ..selection::rules()
                };
                rules.words()
            })
            .collect();
        assert_eq!(rules.len(), s.index_heads * RULE_WORDS);
        let blank = vec![-7f32; self.gates.len() * REPORT_WORDS];
        let table = launches::upload(client, &words);
        let report = launches::upload(client, &blank);
        let buffer = |handle, len| launches::buffer(handle, len);
        let tensors = check::Tensors {
            lse: buffer(&launches::upload(client, &self.lse), self.lse.len()),
            probe: buffer(&launches::upload(client, &self.probe), self.probe.len()),
            kept: buffer(&launches::upload(client, &self.kept), self.kept.len()),
            rules: buffer(&launches::upload(client, &rules), rules.len()),
            spans: buffer(&probes, SPAN_WORDS * s.batch),
            table: buffer(&table, words.len()),
            report: buffer(&report, blank.len()),
        };
        check::launch(client, s, tensors);
        let bytes = client.read_one(table).expect("the launch failed");
        let mut after: Vec<u32> = bytemuck::cast_slice(&bytes).to_vec();
        let gates = after[gates_at..gates_at + self.gates.len()].to_vec();
        after[gates_at..gates_at + self.gates.len()].copy_from_slice(&self.gates);
        assert!(after == words, "more than gates was written");
        (gates, launches::read(client, report, DType::F32))
    }

    fn check(&self, name: &str, client: &Client) {
        let (gates, report) = self.run(client);
        for (i, words) in report.chunks_exact(REPORT_WORDS).enumerate() {
            let (b, head) = (i / self.shape.index_heads, i % self.shape.index_heads);
            let name = format!("{name}: head {head} of {:?}", self.spans[b]);
            let dense = self.gates[i] == 1;
            let recall = if dense { 1.0 } else { self.recall(b, head) };
            let (allowed, floor) = self.rules[head];
            let opens = !dense && recall < f64::from(floor) && allowed % 2 == 1;
            let density = if dense || opens {
                1.0
            } else {
                self.density(b, head)
            };
            assert_eq!(
                gates[i],
                u32::from(dense || opens),
                "{name}: gate, recall {recall}"
            );
            assert_eq!(words[1], if opens { 4.0 } else { -7.0 }, "{name}: reason");
            let close = |got: f32, want: f64| (f64::from(got) - want).abs() < 1e-4;
            assert!(
                close(words[3], recall),
                "{name}: recall {}, not {recall}",
                words[3]
            );
            assert!(
                close(words[4], density),
                "{name}: density {}, not {density}",
                words[4]
            );
            let others = words
                .iter()
                .enumerate()
                .filter(|(w, _)| ![1, 3, 4].contains(w));
            assert!(
                others.into_iter().all(|(_, x)| *x == -7.0),
                "{name}: other words"
            );
        }
    }
}

/// The row of a probe.
fn row(n: usize, r: usize) -> Option<usize> {
    let half = PROBES / 2;
    match r < half {
        true if n >= half => Some(n - half + r),
        true => (r < n).then_some(r),
        false => (n >= PROBES).then(|| (2 * (r - half) + 1) * n / PROBES),
    }
}

#[test]
fn recall_and_density() {
    for (name, client) in launches::clients() {
        for n in [1, 63, 64, 65, 127, 128, 129, 1000] {
            let spans = [(n, n + 100), (5, 5), (0, 40)];
            Case::new(&spans, [6, 2], 0.3).check(name, &client);
        }
        Case::new(&[(200, 200)], [4, 4], 0.3).check(name, &client);
        Case::new(&[(20_000, 70_000)], [2, 1], 0.3).check(name, &client);
    }
}

#[test]
fn density_counts_the_pairs_of_a_window() {
    for (name, client) in launches::clients() {
        for window in [1, 7, 64, 100, 700] {
            for n in [1, 63, 65, 129, 1000] {
                let spans = [(n, n + 100), (5, 5), (0, 40)];
                let case = Case::new(&spans, [6, 2], 0.3).under(window);
                case.check(name, &client);
            }
            let case = Case::new(&[(20_000, 70_000)], [2, 1], 0.3).under(window);
            case.check(name, &client);
        }
    }
}

#[test]
fn gates_open_below_the_floor_alone() {
    for (name, client) in launches::clients() {
        let mut case = Case::new(&[(300, 300), (40, 90)], [8, 4], 0.5);
        // Dense is not allowed, a floor that is met, two that are not.
        case.rules = vec![(30, 0.99), (31, 0.4), (1, 0.99), (31, 0.99)];
        case.gates = vec![0, 0, 0, 1, 0, 0, 1, 0];
        case.check(name, &client);
        let (gates, _) = case.run(&client);
        assert_eq!(gates, [0, 0, 1, 1, 0, 0, 1, 1], "{name}");
    }
}

#[test]
fn what_is_not_a_number_turns_dense() {
    for (name, client) in launches::clients() {
        let mut case = Case::new(&[(200, 200)], [2, 2], 0.9);
        case.lse[199] = f32::NAN;
        let (gates, report) = case.run(&client);
        assert_eq!(gates, [1, 0], "{name}");
        assert_eq!(report[1], 4.0, "{name}");
    }
}

/// More was kept than the probes found, by rounding: recall is 1.
#[test]
fn recall_is_at_most_one() {
    for (name, client) in launches::clients() {
        let mut case = Case::new(&[(64, 64)], [1, 1], 0.9);
        case.probe = case.lse.iter().map(|x| x - 0.01).chain([0.0; 64]).collect();
        let (_, report) = case.run(&client);
        assert_eq!(report[3], 1.0, "{name}");
    }
}
