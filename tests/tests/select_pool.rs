//! Key blocks summed up: mean key, variance and mean value against f64, on ragged caches whose tokens
//! beyond a sequence are NaN; in chunks as in one.
#![cfg(any(feature = "wgpu", feature = "cuda-runtime"))]

use burn::tensor::DType;
use cubecl::{client::Client, ir::AddressType, server::Handle};
use sparse_accelerate::Span;
use sparse_accelerate_kernels::select::{BLOCK, Shape, Visible, pool};
use sparse_accelerate_tests::{
    launches,
    launches::BEYOND,
    problem::{Inputs, Problem},
};

/// Blocks that the buffer has beyond what the keys need.
const SPARE: usize = 2;

struct Pool<'a> {
    client: &'a Client,
    problem: &'a Problem,
    key: Handle,
    value: Handle,
    pooled: Handle,
}

impl<'a> Pool<'a> {
    fn new(client: &'a Client, problem: &'a Problem, inputs: &Inputs) -> Self {
        Self {
            client,
            problem,
            key: launches::upload_as(client, &inputs.key, problem.dtype),
            value: launches::upload_as(client, &inputs.value, problem.dtype),
            pooled: launches::upload(client, &vec![f32::NAN; len(problem) + BEYOND]),
        }
    }

    fn run(&self, spans: &[Span]) {
        let dims = self.problem.key_dims();
        let shape = Shape {
            batch: dims[0],
            heads: self.problem.heads,
            kv_heads: dims[1],
            index_heads: dims[1],
            rows: spans.iter().map(|s| s.query_len).max().unwrap_or(0),
            keys: spans.iter().map(|s| s.kv_len).max().unwrap_or(0),
            head_dim: dims[3],
            scale: 1.0,
            visible: Visible::Causal,
        };
        let words = launches::table(None, spans, 0);
        let tensors = pool::Tensors {
            key: launches::tensor(&self.key, dims),
            value: launches::tensor(&self.value, dims),
            spans: launches::buffer(&launches::upload(self.client, &words), words.len()),
            pooled: launches::buffer(&self.pooled, len(self.problem)),
            capacity: capacity(self.problem),
            address: AddressType::U32,
        };
        let elem = launches::elem(self.problem.dtype);
        pool::launch(self.client, &shape, elem, tensors);
    }

    fn read(self) -> Vec<f32> {
        let mut out = launches::read(self.client, self.pooled, DType::F32);
        let beyond = out.split_off(len(self.problem));
        assert!(beyond.iter().all(|x| x.is_nan()), "wrote past the blocks");
        out
    }
}

fn capacity(problem: &Problem) -> usize {
    problem.keys().div_ceil(BLOCK) + SPARE
}

fn len(problem: &Problem) -> usize {
    problem.spans.len() * problem.kv_heads * capacity(problem) * 3 * problem.head_dim
}

/// Mean key, variance and mean value of a block, and how large its largest key is.
fn exact(problem: &Problem, inputs: &Inputs, head: usize, block: usize, end: usize) -> Vec<f64> {
    let (keys, d) = (problem.keys(), problem.head_dim);
    let tokens = block * BLOCK..end.min((block + 1) * BLOCK);
    let n = tokens.len() as f64;
    let at = |values: &[f32], j: usize, e: usize| f64::from(values[(head * keys + j) * d + e]);
    let mean = |f: &dyn Fn(usize) -> f64| tokens.clone().map(f).sum::<f64>() / n;
    let key: Vec<f64> = (0..d).map(|e| mean(&|j| at(&inputs.key, j, e))).collect();
    let spread = (0..d).map(|e| mean(&|j| (at(&inputs.key, j, e) - key[e]).powi(2)));
    let value = (0..d).map(|e| mean(&|j| at(&inputs.value, j, e)));
    key.iter().copied().chain(spread).chain(value).collect()
}

fn check(name: &str, client: &Client, problem: &Problem, inputs: &Inputs) {
    let pool = Pool::new(client, problem, inputs);
    pool.run(&problem.spans);
    let got = pool.read();
    let part = 3 * problem.head_dim;
    for (i, got) in got.chunks_exact(part).enumerate() {
        let (head, block) = (i / capacity(problem), i % capacity(problem));
        let span = problem.spans[head / problem.kv_heads];
        let name = format!(
            "{name}/{:?}/{span:?}: block {block} of head {head}",
            problem.dtype
        );
        let new = span.query_len > 0
            && block >= span.offset() / BLOCK
            && block < span.kv_len.div_ceil(BLOCK);
        if !new {
            assert!(got.iter().all(|x| x.is_nan()), "{name} was written");
            continue;
        }
        let exact = exact(problem, inputs, head, block, span.kv_len);
        let largest = exact.iter().fold(1f64, |m, x| m.max(x.abs()));
        for (e, (&got, want)) in got.iter().zip(exact).enumerate() {
            // Variances are small beside means, so their error is held to their own size.
            let size = match e / problem.head_dim {
                1 => want.abs() + 1e-6,
                _ => largest,
            };
            let error = (f64::from(got) - want).abs();
            assert!(
                error <= 2e-5 * size,
                "{name}, element {e}: {got}, not {want}"
            );
        }
    }
}

#[test]
fn lengths() {
    launches::each_device(|name, client, dtype| {
        for rows in [1, 63, 64, 65, 127, 128, 129, 1000] {
            let problem = Problem::ragged(dtype, [2, 2, 64], &[(rows, rows)]);
            check(name, client, &problem, &problem.inputs(1));
        }
    });
}

#[test]
fn head_dims() {
    launches::each_device(|name, client, dtype| {
        for head_dim in [8, 32, 80, 128, 256] {
            let problem = Problem::ragged(dtype, [4, 1, head_dim], &[(200, 300)]);
            check(name, client, &problem, &problem.inputs(2));
        }
    });
}

#[test]
fn a_ragged_batch_of_chunks() {
    launches::each_device(|name, client, dtype| {
        let spans = [(130, 1000), (0, 77), (1, 128), (1, 129), (64, 64)];
        let problem = Problem::ragged(dtype, [3, 3, 64], &spans);
        check(name, client, &problem, &problem.inputs(3));
    });
}

#[test]
fn small_variance_beside_a_large_mean() {
    launches::each_device(|name, client, dtype| {
        // What is coarser than f32 has no keys that close.
        if dtype != DType::F32 {
            return;
        }
        let problem = Problem::ragged(dtype, [2, 2, 128], &[(500, 500)]);
        let mut inputs = problem.inputs(4);
        for x in &mut inputs.key {
            *x = 100.0 + 0.1 * *x;
        }
        check(name, client, &problem, &inputs);
    });
}

#[test]
fn chunks_give_the_bits_of_the_whole() {
    launches::each_device(|name, client, dtype| {
        let problem = Problem::ragged(dtype, [4, 2, 80], &[(700, 700), (300, 300)]);
        let inputs = problem.inputs(5);
        let whole = Pool::new(client, &problem, &inputs);
        whole.run(&problem.spans);
        let parts = Pool::new(client, &problem, &inputs);
        let mut before = 0;
        for end in [100, 128, 129, 400, 700] {
            let span = |s: &Span| Span {
                query_len: s.kv_len.min(end) - s.kv_len.min(before),
                kv_len: s.kv_len.min(end),
                prompt_len: s.prompt_len,
            };
            let spans: Vec<Span> = problem.spans.iter().map(span).collect();
            parts.run(&spans);
            before = end;
        }
        let bits = |x: Vec<f32>| x.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert!(bits(whole.read()) == bits(parts.read()), "{name}/{dtype:?}");
    });
}
