//! The correction for the keys that an index leaves out: against the formula in f64, exact where the keys
//! of a block are alike, and closer to dense attention than what it corrects.
#![cfg(any(feature = "wgpu", feature = "cuda-runtime"))]

use burn::tensor::DType;
use cubecl::{client::Client, ir::AddressType, server::Handle};
use half::bf16;
use sparse_accelerate::{Span, index, index::TileIndex};
use sparse_accelerate_inputs as bench;
use sparse_accelerate_kernels::{
    attend::{self, QUERY_TILE},
    select::{
        BLOCK, Shape, Visible,
        correct::{self, Correction, Order, Variant},
        pool,
    },
};
use sparse_accelerate_tests::{
    launches,
    launches::BEYOND,
    oracle::{self, Expected},
    problem::{Inputs, Problem},
};

/// Device data of a case: inputs, index and pooled blocks.
struct Case<'a> {
    client: &'a Client,
    problem: &'a Problem,
    index: &'a TileIndex,
    gates: Vec<u32>,
    query: Handle,
    key: Handle,
    value: Handle,
    pooled: Handle,
    table: (Handle, usize),
}

/// Output and log-sum-exp.
struct Found {
    out: Vec<f32>,
    lse: Vec<f32>,
}

impl<'a> Case<'a> {
    fn new(
        client: &'a Client,
        problem: &'a Problem,
        inputs: &Inputs,
        index: &'a TileIndex,
        gates: Vec<u32>,
    ) -> Self {
        let words = launches::gated_table(Some(index), &problem.spans, 0, &gates);
        let upload = |values: &[f32]| launches::upload_as(client, values, problem.dtype);
        let case = Self {
            client,
            problem,
            index,
            gates,
            query: upload(&inputs.query),
            key: upload(&inputs.key),
            value: upload(&inputs.value),
            pooled: launches::upload(client, &vec![f32::NAN; pooled_len(problem)]),
            table: (launches::upload(client, &words), words.len()),
        };
        // Every block is new to the pool: what came before the chunk was pooled before it.
        let whole: Vec<Span> = problem
            .spans
            .iter()
            .map(|s| Span::whole(s.kv_len))
            .collect();
        let words = launches::table(None, &whole, 0);
        let shape = Shape {
            rows: case.shape().keys,
            ..case.shape()
        };
        let tensors = pool::Tensors {
            key: launches::tensor(&case.key, problem.key_dims()),
            value: launches::tensor(&case.value, problem.key_dims()),
            spans: launches::buffer(&launches::upload(client, &words), words.len()),
            pooled: launches::buffer(&case.pooled, pooled_len(problem)),
            capacity: capacity(problem),
            address: AddressType::U32,
        };
        pool::launch(client, &shape, launches::elem(problem.dtype), tensors);
        case
    }

    fn shape(&self) -> Shape {
        let (q, k) = (self.problem.query_dims(), self.problem.key_dims());
        Shape {
            batch: q[0],
            heads: q[1],
            kv_heads: k[1],
            index_heads: self.index.heads(),
            rows: q[2],
            keys: self
                .problem
                .spans
                .iter()
                .map(|s| s.kv_len)
                .max()
                .unwrap_or(0),
            head_dim: q[3],
            scale: 1.0 / (q[3] as f32).sqrt(),
            visible: Visible::of(self.problem.window),
        }
    }

    /// Attention over the index: output and log-sum-exp, on the device.
    fn attend(&self) -> [Handle; 2] {
        let (q, k, dtype) = (
            self.problem.query_dims(),
            self.problem.key_dims(),
            self.problem.dtype,
        );
        let request = attend::Problem {
            gated_heads: Some(self.index.heads()),
            ..launches::request(self.problem, Some(self.index))
        };
        let (elem, device) = (launches::elem(dtype), self.client.properties());
        let plan = attend::prepare(&request, elem, device).expect("plan");
        let lse_len = q[0] * q[1] * q[2];
        let nan = |len| vec![f32::NAN; len + BEYOND];
        let out = launches::upload_as(self.client, &nan(lse_len * q[3]), dtype);
        let lse = launches::upload(self.client, &nan(lse_len));
        let tensors = attend::Tensors {
            query: launches::tensor(&self.query, q),
            key: launches::tensor(&self.key, k),
            value: launches::tensor(&self.value, k),
            scales: None,
            table: launches::buffer(&self.table.0, self.table.1),
            out: launches::tensor(&out, q),
            lse: launches::buffer(&lse, lse_len),
            with_lse: true,
            scratch: None,
            address: AddressType::U32,
        };
        attend::launch(self.client, &request, &plan, elem, tensors);
        [out, lse]
    }

    fn variants(&self) -> Vec<Variant> {
        let elem = launches::elem(self.problem.dtype);
        correct::variants(&self.shape(), elem, self.client.properties())
    }

    fn correct(&self, correction: Correction, variant: Variant) -> Found {
        let (q, dtype) = (self.problem.query_dims(), self.problem.dtype);
        let lse_len = q[0] * q[1] * q[2];
        let [out, lse] = self.attend();
        let corrected = launches::upload(self.client, &vec![f32::NAN; lse_len + BEYOND]);
        let tensors = correct::Tensors {
            query: launches::tensor(&self.query, q),
            pooled: launches::buffer(&self.pooled, pooled_len(self.problem)),
            capacity: capacity(self.problem),
            table: launches::buffer(&self.table.0, self.table.1),
            out: launches::tensor(&out, q),
            lse: launches::buffer(&lse, lse_len),
            corrected: launches::buffer(&corrected, lse_len),
            with_lse: true,
            address: AddressType::U32,
        };
        let elem = launches::elem(dtype);
        correct::launch(
            self.client,
            &self.shape(),
            correction,
            elem,
            Some(variant),
            tensors,
        )
        .expect("launch");
        let within = |handle, dtype, len| {
            let mut values = launches::read(self.client, handle, dtype);
            let beyond = values.split_off(len);
            assert!(beyond.iter().all(|x| x.is_nan()), "wrote past the output");
            values
        };
        Found {
            out: within(out, dtype, lse_len * q[3]),
            lse: within(corrected, DType::F32, lse_len),
        }
    }

    /// Index head of a query head.
    fn index_head(&self, h: usize) -> usize {
        h * self.index.heads() / self.problem.heads
    }

    /// Attention over the index, in f64.
    fn sparse(&self, inputs: &Inputs) -> Expected {
        let sees = |b, h, i, j| {
            self.problem.in_window(b, i, j) && self.index.sees(b, self.index_head(h), i, j)
        };
        oracle::exact(self.problem, inputs, &sees)
    }

    /// The formula, in f64, on top of attention over the index.
    fn formula(&self, inputs: &Inputs, correction: Correction) -> Expected {
        let [batch, heads, rows, d] = self.problem.query_dims();
        let mut found = self.sparse(inputs);
        let scale = f64::from(self.shape().scale);
        for b in 0..batch {
            let span = self.problem.spans[b];
            for h in 0..heads {
                let kv = b * self.problem.kv_heads + h * self.problem.kv_heads / heads;
                let blocks: Vec<[Vec<f64>; 3]> = (0..span.kv_len / BLOCK)
                    .map(|block| pooled(self.problem, inputs, kv, block))
                    .collect();
                for i in 0..span.query_len {
                    let at = (b * heads + h) * rows + i;
                    let q = &inputs.query[at * d..(at + 1) * d];
                    let tile = i / QUERY_TILE;
                    let row = self.index.row(b, self.index_head(h), tile);
                    let mut keys = vec![(found.lse[at], found.out[at * d..(at + 1) * d].to_vec())];
                    // Blocks that every row of the tile sees whole.
                    let rows = tile * QUERY_TILE..((tile + 1) * QUERY_TILE).min(span.query_len);
                    let whole = |block: usize| {
                        let seen = |i: usize, j: usize| {
                            j <= span.offset() + i && self.problem.in_window(b, i, j)
                        };
                        let (first, last) = (block * BLOCK, (block + 1) * BLOCK - 1);
                        rows.clone().all(|i| seen(i, first) && seen(i, last))
                    };
                    for (block, pooled) in blocks.iter().enumerate().filter(|b| whole(b.0)) {
                        let kept = (block * BLOCK..(block + 1) * BLOCK)
                            .filter(|j| {
                                let key = *j as u32;
                                let inside = |r: &[u32]| r[0] <= key && key < r[1];
                                row.ranges.chunks_exact(2).any(inside) || row.columns.contains(&key)
                            })
                            .count();
                        if kept == BLOCK {
                            continue;
                        }
                        let [mean, variance, value] = pooled;
                        let dot = |x: &[f64], power: i32| -> f64 {
                            let terms = q.iter().zip(x);
                            terms
                                .map(|(q, x)| (scale * f64::from(*q)).powi(power) * x)
                                .sum()
                        };
                        let mut logit = dot(mean, 1) + ((BLOCK - kept) as f64).ln();
                        if correction.order() == Some(Order::Second) {
                            logit += (0.5 * dot(variance, 2)).min(f64::from(correction.cap()));
                        }
                        keys.push((logit, value.clone()));
                    }
                    let highest = keys.iter().fold(f64::NEG_INFINITY, |m, k| m.max(k.0));
                    let total: f64 = keys.iter().map(|k| (k.0 - highest).exp()).sum();
                    found.lse[at] = highest + total.ln();
                    for e in 0..d {
                        let weighed = keys.iter().map(|k| (k.0 - highest).exp() * k.1[e]);
                        found.out[at * d + e] = weighed.sum::<f64>() / total;
                    }
                }
            }
        }
        found
    }

    /// Compares every variant with what is expected; heads whose gate is 1 must be left alone.
    fn check(&self, name: &str, correction: Correction, expected: &Expected) {
        let [batch, heads, rows, d] = self.problem.query_dims();
        // Matrix units take means and variances in the elements' type.
        let tolerance = match self.problem.dtype {
            DType::F16 => 6e-3,
            DType::BF16 => 5e-2,
            _ => 1e-4,
        };
        for variant in self.variants() {
            let found = self.correct(correction, variant);
            for at in 0..batch * heads * rows {
                let (b, h) = (at / (heads * rows), at / rows % heads);
                let name = format!(
                    "{name}/{:?}/{variant:?}/{:?}/{:?}/{:?}: row {} of head {h} of {b}",
                    self.problem.dtype,
                    self.problem.spans,
                    self.problem.window,
                    correction.order(),
                    at % rows
                );
                let out = &found.out[at * d..(at + 1) * d];
                if self.gates[b * self.index.heads() + self.index_head(h)] == 1 {
                    let untouched = out.iter().chain([&found.lse[at]]).all(|x| x.is_nan());
                    assert!(untouched, "{name} is another's");
                    continue;
                }
                let close = |got: f32, want: f64| match want.is_finite() {
                    true => (f64::from(got) - want).abs() <= tolerance * want.abs().max(1.0),
                    false => f64::from(got) == want,
                };
                let (got, want) = (found.lse[at], expected.lse[at]);
                assert!(close(got, want), "{name}: lse {got}, not {want}");
                for (e, (&got, &want)) in out.iter().zip(&expected.out[at * d..]).enumerate() {
                    assert!(close(got, want), "{name}: element {e} is {got}, not {want}");
                }
            }
        }
    }
}

fn capacity(problem: &Problem) -> usize {
    problem.keys().div_ceil(BLOCK) + 1
}

fn pooled_len(problem: &Problem) -> usize {
    problem.spans.len() * problem.kv_heads * capacity(problem) * 3 * problem.head_dim
}

/// Mean key, variance and mean value of a whole block.
fn pooled(problem: &Problem, inputs: &Inputs, kv: usize, block: usize) -> [Vec<f64>; 3] {
    let d = problem.head_dim;
    let mean = |f: &dyn Fn(usize, usize) -> f64, e: usize| {
        let first = kv * problem.keys() + block * BLOCK;
        (first..first + BLOCK).map(|j| f(j, e)).sum::<f64>() / BLOCK as f64
    };
    let key = |j: usize, e: usize| f64::from(inputs.key[j * d + e]);
    let value = |j: usize, e: usize| f64::from(inputs.value[j * d + e]);
    let means: Vec<f64> = (0..d).map(|e| mean(&key, e)).collect();
    let variances = (0..d)
        .map(|e| mean(&|j, e| (key(j, e) - means[e]).powi(2), e))
        .collect();
    let values = (0..d).map(|e| mean(&value, e)).collect();
    [means, variances, values]
}

/// The last `window` keys of every row, and columns of each index head.
fn windowed(problem: &Problem, heads: usize, window: usize, step: usize) -> TileIndex {
    let columns: Vec<Vec<usize>> = (0..heads)
        .map(|h| {
            (0..problem.keys() - problem.slack)
                .step_by(step + h)
                .collect()
        })
        .collect();
    let offsets: Vec<Vec<usize>> = vec![(0..window).collect(); heads];
    index::interval_slash(&problem.spans, &columns, &offsets).expect("index")
}

const FIRST: Correction = Correction::Mean;
const SECOND: Correction = Correction::Gaussian { cap: 4.0 };

fn on(name: &str, client: &Client, problem: &Problem, index: &TileIndex, gates: Vec<u32>) {
    let inputs = problem.inputs(7);
    let case = Case::new(client, problem, &inputs, index, gates);
    for correction in [FIRST, SECOND] {
        case.check(name, correction, &case.formula(&inputs, correction));
    }
}

#[test]
fn lengths_and_offsets() {
    launches::each_device(|name, client, dtype| {
        for (rows, keys) in [(1, 129), (63, 700), (65, 65), (129, 1000), (300, 300)] {
            let problem = Problem::ragged(dtype, [2, 1, 64], &[(rows, keys)]);
            let index = windowed(&problem, 1, 70, 9);
            on(name, client, &problem, &index, vec![0]);
        }
    });
}

#[test]
fn groups_and_head_dims() {
    launches::each_device(|name, client, dtype| {
        for (heads, head_dim) in [(1, 32), (3, 128), (4, 80), (7, 64)] {
            let problem = Problem::ragged(dtype, [heads, 1, head_dim], &[(70, 450)]);
            let index = windowed(&problem, 1, 20, 50);
            on(name, client, &problem, &index, vec![0]);
        }
    });
}

#[test]
fn gates_and_index_heads_in_a_ragged_batch() {
    launches::each_device(|name, client, dtype| {
        let problem = Problem::ragged(dtype, [4, 2, 64], &[(140, 600), (3, 80), (64, 320)]);
        let index = windowed(&problem, 2, 40, 30);
        on(name, client, &problem, &index, vec![0, 1, 1, 0, 0, 0]);
        let index = windowed(&problem, 4, 40, 30);
        on(
            name,
            client,
            &problem,
            &index,
            vec![0, 1, 0, 0, 1, 1, 1, 1, 0, 0, 0, 1],
        );
        let index = windowed(&problem, 1, 40, 30);
        on(name, client, &problem, &index, vec![0, 0, 1]);
    });
}

/// Windows within a block, of whole blocks, over some; blocks that rows see in part take no part. Keys and
/// values that no row sees are NaN, and so are their blocks.
#[test]
fn windows_of_keys() {
    launches::each_device(|name, client, dtype| {
        for window in [1, 191, 192, 400] {
            let problem = Problem {
                window: Some(window),
                ..Problem::ragged(dtype, [4, 2, 32], &[(100, 700), (3, 80), (64, 320)])
            };
            let index = windowed(&problem, 2, 40, 30);
            let index = index.within(sparse_accelerate::Visible::Window(window as usize));
            let index = index.expect("a window");
            let mut inputs = problem.inputs(7);
            let (d, keys) = (problem.head_dim, problem.keys());
            for row in 0..inputs.key.len() / d {
                let (b, j) = (row / keys / problem.kv_heads, row % keys);
                let span = problem.spans[b];
                // Of the blocks that are pooled, only such as no row sees any key of.
                let end = (j / BLOCK + 1) * BLOCK;
                if end <= span.offset() && !problem.in_window(b, 0, end - 1) {
                    inputs.key[row * d..(row + 1) * d].fill(f32::NAN);
                    inputs.value[row * d..(row + 1) * d].fill(f32::NAN);
                }
            }
            let case = Case::new(client, &problem, &inputs, &index, vec![0, 1, 0, 0, 0, 0]);
            for correction in [FIRST, SECOND] {
                case.check(name, correction, &case.formula(&inputs, correction));
            }
        }
    });
}

/// Blocks are counted some at a time; ranges, columns and rows cross from one lot to the next.
#[test]
fn more_blocks_than_are_counted_at_once() {
    launches::each_device(|name, client, dtype| {
        let problem = Problem::ragged(dtype, [1, 1, 32], &[(2, 128 * 1100)]);
        let index = windowed(&problem, 1, 128 * 20, 1000);
        on(name, client, &problem, &index, vec![0]);
        let problem = Problem {
            window: Some(128 * 300 + 5),
            ..problem
        };
        on(name, client, &problem, &index, vec![0]);
    });
}

/// Everything kept: nothing to correct, bit for bit.
#[test]
fn a_dense_index_is_left_alone() {
    launches::each_device(|name, client, dtype| {
        let problem = Problem::ragged(dtype, [2, 1, 64], &[(100, 400)]);
        let index = index::full(&problem.spans).expect("index");
        let inputs = problem.inputs(7);
        let case = Case::new(client, &problem, &inputs, &index, vec![0]);
        let [out, lse] = case.attend();
        let out = launches::read(client, out, dtype);
        let lse = launches::read(client, lse, DType::F32);
        for variant in case.variants() {
            let found = case.correct(SECOND, variant);
            assert!(
                found.out[..] == out[..found.out.len()],
                "{name}/{variant:?}"
            );
            assert!(
                found.lse[..] == lse[..found.lse.len()],
                "{name}/{variant:?}"
            );
        }
    });
}

/// A pseudo key equals the keys of its block where all keys are equal, and all values.
#[test]
fn equal_keys_give_dense_attention() {
    launches::each_device(|name, client, dtype| {
        let problem = Problem::ragged(dtype, [4, 2, 64], &[(200, 900)]);
        let mut inputs = problem.inputs(8);
        let d = problem.head_dim;
        for values in [&mut inputs.key, &mut inputs.value] {
            for row in 0..values.len() / d {
                let (head, token) = (row / problem.keys(), row % problem.keys());
                let first = head * problem.keys() + token / BLOCK * BLOCK;
                if token < problem.spans[0].kv_len {
                    values.copy_within(first * d..(first + 1) * d, row * d);
                }
            }
        }
        // The window reaches past the last block that all rows of a tile see whole.
        let index = windowed(&problem, 2, 200, 40);
        let case = Case::new(client, &problem, &inputs, &index, vec![0, 0]);
        let dense = oracle::exact(&problem, &inputs, &oracle::causal(&problem));
        for correction in [FIRST, SECOND] {
            case.check(name, correction, &dense);
        }
    });
}

/// Mean distance of the outputs of every 7th row from dense attention.
fn distance(problem: &Problem, dense: &Expected, out: &dyn Fn(usize) -> f64) -> f64 {
    let d = problem.head_dim;
    let rows = dense.lse.len();
    let row = |at: usize| {
        let off = (at * d..(at + 1) * d).map(|i| (out(i) - dense.out[i]).powi(2));
        off.sum::<f64>().sqrt()
    };
    (0..rows).step_by(7).map(row).sum::<f64>() / rows.div_ceil(7) as f64
}

/// Distances from dense attention without a correction, with the first order, with the second.
fn distances(client: &Client, problem: &Problem, inputs: &Inputs, variant: usize) -> Vec<f64> {
    let index = windowed(problem, 1, 300, 100_000);
    let case = Case::new(client, problem, inputs, &index, vec![0]);
    let dense = oracle::exact(problem, inputs, &oracle::causal(problem));
    let sparse = case.sparse(inputs);
    let mut all = vec![distance(problem, &dense, &|i| sparse.out[i])];
    for correction in [FIRST, SECOND] {
        let found = case.correct(correction, case.variants()[variant]);
        all.push(distance(problem, &dense, &|i| f64::from(found.out[i])));
    }
    all
}

fn variants(client: &Client, problem: &Problem) -> usize {
    let shape = Shape {
        batch: 1,
        heads: problem.heads,
        kv_heads: problem.kv_heads,
        index_heads: problem.kv_heads,
        rows: problem.rows(),
        keys: problem.keys(),
        head_dim: problem.head_dim,
        scale: 1.0,
        visible: Visible::of(problem.window),
    };
    correct::variants(&shape, launches::elem(problem.dtype), client.properties()).len()
}

#[test]
fn closer_to_dense_on_random_inputs() {
    launches::each_device(|name, client, dtype| {
        let problem = Problem::ragged(dtype, [2, 1, 64], &[(64, 1500)]);
        let inputs = problem.inputs(9);
        for variant in 0..variants(client, &problem) {
            let [sparse, first, second] = distances(client, &problem, &inputs, variant)[..] else {
                panic!("three distances");
            };
            println!("{name}/{dtype:?}: {sparse:.4}, {first:.4}, {second:.4}");
            assert!(first < 0.8 * sparse, "{name}: {first}, from {sparse}");
            assert!(second < 0.8 * sparse, "{name}: {second}, from {sparse}");
        }
    });
}

/// Four query heads of structured inputs, their last 64 rows.
#[test]
fn closer_to_dense_on_structured_inputs() {
    let (len, rows) = (2048, 64);
    let shape = bench::Shape::new(4, 1, len);
    let family = bench::Family::Structured;
    let values = |x: Vec<bf16>| x.into_iter().map(bf16::to_f32).collect::<Vec<f32>>();
    let query = values(bench::query(1, family, shape).expect("query"));
    let last = |head: &[f32]| head[(len - rows) * 128..].to_vec();
    let inputs = Inputs {
        query: query.chunks_exact(len * 128).flat_map(last).collect(),
        key: values(bench::key(1, family, shape).expect("key")),
        value: values(bench::value(1, family, shape).expect("value")),
    };
    launches::each_device(|name, client, dtype| {
        let problem = Problem {
            slack: 0,
            ..Problem::ragged(dtype, [4, 1, 128], &[(rows, len)])
        };
        for variant in 0..variants(client, &problem) {
            let [sparse, first, second] = distances(client, &problem, &inputs, variant)[..] else {
                panic!("three distances");
            };
            println!("{name}/{dtype:?}: {sparse:.4}, {first:.4}, {second:.4}");
            assert!(first < sparse, "{name}: {first}, from {sparse}");
            assert!(second < first, "{name}: {second}, from {first}");
        }
    });
}
