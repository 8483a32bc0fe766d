//! Exact attention of probe rows, by column and by slash, against f64 on hostile shapes; every plan that
//! a device has, twice: right, and bitwise equal. Keys past a sequence are NaN, as are keys that a window hides
//! from all of its rows, outputs and scratch.
#![cfg(any(feature = "wgpu", feature = "cuda-runtime"))]

use burn::tensor::DType;
use cubecl::{client::Client, ir::AddressType};
use sparse_accelerate_inputs::{Family, Shape as InputShape, key, query};
use sparse_accelerate_kernels::select::{
    BLOCK, GRANULE, PROBES, Rules, Shape, View, Visible, probe,
};
use sparse_accelerate_tests::{
    launches::{self, BEYOND},
    problem::{Inputs, Problem, round},
    selection,
};

/// Relative error of a share: that of its exponent, which is a difference of two numbers of some tens.
const TOLERANCE: f64 = 2e-4;
/// Sinks and windows that differ from head to head and meet tiles and granules everywhere.
fn rules(heads: usize) -> Vec<u32> {
    let (sinks, windows) = ([0, 1, 16, 130], [1, 5, 64, 200]);
    (0..heads)
        .flat_map(|h| {
            let rules = Rules {
                sink: sinks[h % 4],
                window: windows[(h + 1) % 4],
                ..selection::rules()
            };
            rules.words()
        })
        .collect()
}

/// Results of a probe.
struct Probed {
    lse: Vec<f32>,
    columns: Vec<f32>,
    slashes: Vec<u32>,
}

/// The same in f64, slashes as shares; and how many rounded sums a slash has at most.
struct Exact {
    lse: Vec<f64>,
    columns: Vec<f64>,
    slashes: Vec<f64>,
    sums: Vec<f64>,
}

/// Probe rows of `n` new rows: group and row, or none.
fn probe_row(r: usize, n: usize) -> Option<(usize, usize)> {
    match (r, n) {
        (0..64, 64..) => Some((0, n - 64 + r)),
        (0..64, _) => (r < n).then_some((0, r)),
        (_, 128..) => Some((1, (2 * (r - 64) + 1) * n / 128)),
        _ => None,
    }
}

fn exact(problem: &Problem, inputs: &Inputs, shape: &Shape, rules: &[u32]) -> Exact {
    let [batch, heads, rows, d] = problem.query_dims();
    let cache = problem.keys();
    let (keys, buckets) = (shape.keys, shape.slash_buckets());
    let mut out = Exact {
        lse: vec![0.0; batch * heads * PROBES],
        columns: vec![0.0; batch * heads * 2 * keys],
        slashes: vec![0.0; batch * heads * 2 * buckets],
        sums: vec![0.0; batch * heads * 2 * buckets],
    };
    for bh in 0..batch * heads {
        let (b, h) = (bh / heads, bh % heads);
        let span = problem.spans[b];
        let kv_head = b * problem.kv_heads + h / (heads / problem.kv_heads);
        let (sink, window) = Rules::of(rules, h / shape.heads_per_index()).local();
        for r in 0..PROBES {
            let Some((group, row)) = probe_row(r, span.query_len) else {
                continue;
            };
            let position = span.kv_len - span.query_len + row;
            let q = &inputs.query[(bh * rows + row) * d..][..d];
            let seen = |j: &usize| problem.in_window(b, row, *j);
            let visible: Vec<usize> = (0..=position).filter(seen).collect();
            let logits: Vec<f64> = visible
                .iter()
                .map(|&j| {
                    let k = &inputs.key[(kv_head * cache + j) * d..][..d];
                    let dot: f64 = q
                        .iter()
                        .zip(k)
                        .map(|(q, k)| f64::from(*q) * f64::from(*k))
                        .sum();
                    dot * f64::from(shape.scale)
                })
                .collect();
            let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = logits.iter().map(|z| (z - highest).exp()).sum();
            let lse = highest + total.ln();
            out.lse[bh * PROBES + r] = lse;
            let valid = if group == 0 {
                span.query_len.min(64)
            } else {
                64
            };
            let mut last = None;
            for (&j, z) in visible.iter().zip(&logits) {
                if j < sink || position - j < window {
                    continue;
                }
                let share = (z - lse).exp();
                out.columns[(bh * 2 + group) * keys + j] += share / valid as f64;
                let bucket = (bh * 2 + group) * buckets + (position - j) / GRANULE;
                out.slashes[bucket] += share;
                let sum = Some((j / BLOCK, bucket));
                if last != sum {
                    out.sums[bucket] += 1.0;
                    last = sum;
                }
            }
        }
    }
    out
}

fn run(
    client: &Client,
    plan: &probe::Plan,
    problem: &Problem,
    inputs: &Inputs,
    shape: &Shape,
    rules: &[u32],
) -> Probed {
    let view = |values: &[f32], dims: [usize; 4]| View {
        handle: launches::upload_as(client, values, problem.dtype),
        shape: dims,
        strides: [dims[1] * dims[2] * dims[3], dims[2] * dims[3], dims[3], 1],
    };
    let heads = shape.batch * shape.heads;
    let nan = |len: usize| launches::upload(client, &vec![f32::NAN; len + BEYOND]);
    let (columns_len, slashes_len) = (heads * 2 * shape.keys, heads * 2 * shape.slash_buckets());
    let (lse, columns) = (nan(heads * PROBES), nan(columns_len));
    let slashes = launches::upload(client, &vec![u32::MAX; slashes_len + BEYOND]);
    let tensors = probe::Tensors {
        query: view(&inputs.query, problem.query_dims()),
        key: view(&inputs.key, problem.key_dims()),
        table: launches::upload(client, &launches::table(None, &problem.spans, 0)),
        rules: launches::upload(client, rules),
        lse: lse.clone(),
        columns: columns.clone(),
        slashes: slashes.clone(),
        address: AddressType::U32,
    };
    probe::launch(client, shape, plan, launches::elem(problem.dtype), tensors);
    let floats = |handle, len: usize| {
        let mut values = launches::read(client, handle, DType::F32);
        assert!(
            values.split_off(len).iter().all(|x| x.is_nan()),
            "wrote past the end"
        );
        values
    };
    let words = client.read_one(slashes).expect("the launch failed");
    let mut slashes: Vec<u32> = bytemuck::cast_slice(&words).to_vec();
    let beyond = slashes.split_off(slashes_len);
    assert!(
        beyond.iter().all(|x| *x == u32::MAX),
        "wrote past the slashes"
    );
    Probed {
        lse: floats(lse, heads * PROBES),
        columns: floats(columns, columns_len),
        slashes,
    }
}

/// Every plan, against the oracle; `index_heads` choose for themselves.
fn check(name: &str, client: &Client, problem: &Problem, inputs: &Inputs, index_heads: usize) {
    let shape = Shape {
        batch: problem.spans.len(),
        heads: problem.heads,
        kv_heads: problem.kv_heads,
        index_heads,
        rows: problem.rows(),
        keys: problem.keys() - problem.slack,
        head_dim: problem.head_dim,
        scale: 1.0 / (problem.head_dim as f32).sqrt(),
        visible: Visible::of(problem.window),
    };
    let rules = rules(index_heads);
    let exact = exact(problem, inputs, &shape, &rules);
    let elem = launches::elem(problem.dtype);
    let plans = probe::plans(&shape, elem, client.properties()).expect("plans");
    assert!(!plans.is_empty(), "{name}: no plan");
    for plan in plans {
        let name = format!(
            "{name}/{:?}/{:?}/{:?}/{:?}",
            problem.dtype, problem.spans, problem.window, plan.blueprint
        );
        let first = run(client, &plan, problem, inputs, &shape, &rules);
        for (i, (got, want)) in first.lse.iter().zip(&exact.lse).enumerate() {
            let off = (f64::from(*got) - want).abs();
            assert!(
                off <= TOLERANCE * want.abs().max(1.0),
                "{name}: lse {i}: {got} for {want}"
            );
        }
        for (i, (got, want)) in first.columns.iter().zip(&exact.columns).enumerate() {
            let off = (f64::from(*got) - want).abs();
            assert!(
                off <= TOLERANCE * want + 1e-8,
                "{name}: column {i}: {got} for {want}"
            );
        }
        for (i, (got, want)) in first.slashes.iter().zip(&exact.slashes).enumerate() {
            let want = want * f64::from(1u32 << 20);
            let off = (f64::from(*got) - want).abs();
            let rounding = 0.5 * exact.sums[i];
            assert!(
                off <= TOLERANCE * want + rounding,
                "{name}: slash {i}: {got} for {want} of {} sums",
                exact.sums[i]
            );
        }
        let second = run(client, &plan, problem, inputs, &shape, &rules);
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(
            bits(&first.lse),
            bits(&second.lse),
            "{name}: two runs differ"
        );
        assert_eq!(
            bits(&first.columns),
            bits(&second.columns),
            "{name}: two runs differ"
        );
        assert_eq!(first.slashes, second.slashes, "{name}: two runs differ");
    }
}

fn random(heads: [usize; 3], index_heads: usize, spans: &[(usize, usize)]) {
    launches::each_device(|name, client, dtype| {
        let problem = Problem::ragged(dtype, heads, spans);
        check(name, client, &problem, &problem.inputs(5), index_heads);
    });
}

#[test]
fn a_ragged_batch_behind_prefixes() {
    let spans = [(300, 300), (63, 700), (1, 129), (128, 128), (64, 65)];
    random([4, 1, 128], 1, &spans);
}

#[test]
fn heads_without_sharing() {
    random([4, 4, 32], 4, &[(200, 500), (129, 129)]);
}

#[test]
fn three_heads_that_choose_alone() {
    random([6, 2, 80], 6, &[(65, 65), (130, 257), (127, 1000)]);
}

#[test]
fn seven_heads_of_a_kv_head() {
    random([14, 2, 32], 2, &[(129, 400)]);
}

#[test]
fn eight_heads_of_a_kv_head() {
    random([8, 1, 32], 8, &[(127, 300), (200, 200)]);
}

#[test]
fn more_heads_than_a_cube_takes() {
    random([12, 1, 40], 1, &[(128, 256)]);
}

/// Ragged batches under windows: shorter than a granule, than a tile, as long as one, longer than some
/// sequences; longer than all of them is no window.
#[test]
fn windows_of_keys() {
    for (heads, index_heads, spans, windows) in [
        (
            [4, 1, 64],
            1,
            &[(300, 300), (63, 500), (1, 129)][..],
            [1, 100, 301],
        ),
        ([3, 1, 40], 3, &[(130, 257), (127, 401)], [7, 128, 400]),
    ] {
        launches::each_device(|name, client, dtype| {
            for window in windows {
                let problem = Problem {
                    window: Some(window),
                    ..Problem::ragged(dtype, heads, spans)
                };
                let mut inputs = problem.inputs(6);
                let head_dim = problem.head_dim;
                for (row, key) in inputs.key.chunks_exact_mut(head_dim).enumerate() {
                    let (j, head) = (row % problem.keys(), row / problem.keys());
                    let b = head / problem.kv_heads;
                    let rows = 0..problem.spans[b].query_len;
                    if !rows.clone().any(|i| problem.in_window(b, i, j)) {
                        key.fill(f32::NAN);
                    }
                }
                check(name, client, &problem, &inputs, index_heads);
            }
        });
    }
}

#[test]
fn structured_inputs() {
    launches::each_device(|name, client, dtype| {
        let problem = Problem {
            slack: 0,
            ..Problem::ragged(dtype, [4, 1, 128], &[(700, 700)])
        };
        let shape = InputShape::new(4, 1, 700);
        let widen = |values: Vec<half::bf16>| {
            values
                .iter()
                .map(|x| round(x.to_f32(), dtype))
                .collect::<Vec<_>>()
        };
        let inputs = Inputs {
            query: widen(query(3, Family::Structured, shape).expect("queries")),
            key: widen(key(3, Family::Structured, shape).expect("keys")),
            value: Vec::new(),
        };
        check(name, client, &problem, &inputs, 1);
    });
}
