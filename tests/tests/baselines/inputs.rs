//! Problems: independent normals, the structured family of the benchmarks, and planted patterns.

use burn::tensor::{DType, Device, Tensor};
use sparse_accelerate::Span;
use sparse_accelerate_baselines::Baseline;
use sparse_accelerate_inputs::{self as bench, Family, Shape};
use sparse_accelerate_tests::problem::{Inputs, Layout, Problem};

/// A problem with its inputs.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) problem: Problem,
    pub(crate) inputs: Inputs,
}

impl Case {
    fn new(name: &str, heads: [usize; 3], spans: &[Span]) -> Self {
        let problem = Problem {
            dtype: DType::F32,
            heads: heads[0],
            kv_heads: heads[1],
            head_dim: heads[2],
            spans: spans.to_vec(),
            slack: 5,
            magnitude: 1.0,
            layout: Layout::Swapped,
            window: None,
        };
        let inputs = problem.inputs(11);
        let name = format!("{name} {spans:?}");
        Self {
            name,
            problem,
            inputs,
        }
    }

    /// Independent normals.
    pub(crate) fn random(heads: [usize; 3], spans: &[Span]) -> Self {
        Self::new("random", heads, spans)
    }

    /// The structured family, one seed a sequence.
    pub(crate) fn structured(heads: usize, kv_heads: usize, spans: &[Span]) -> Self {
        let mut case = Self::new("structured", [heads, kv_heads, 128], spans);
        let query_rows = case.problem.rows();
        let key_rows = case.problem.keys();
        for (b, span) in spans.iter().enumerate() {
            let shape = Shape::new(heads, kv_heads, span.kv_len);
            let query = bench::query(b as u32 + 3, Family::Structured, shape).expect("query");
            let key = bench::key(b as u32 + 3, Family::Structured, shape).expect("key");
            let value = |from: &[half::bf16], h: usize, row: usize, x: usize| {
                from[(h * span.kv_len + row) * 128 + x].to_f32()
            };
            for (h, i, x) in each(heads, span.query_len) {
                let to = ((b * heads + h) * query_rows + i) * 128 + x;
                case.inputs.query[to] = value(&query, h, span.offset() + i, x);
            }
            for (h, j, x) in each(kv_heads, span.kv_len) {
                let to = ((b * kv_heads + h) * key_rows + j) * 128 + x;
                case.inputs.key[to] = value(&key, h, j, x);
            }
        }
        case
    }

    /// One head of 96: 64 rotating dimensions whose products peak with `logit` where `p - j = offset`,
    /// and one each for columns that all rows see with `logit` and for a first block with a logit of 4.
    pub(crate) fn planted(len: usize, offset: usize, columns: &[usize], logit: f64) -> Self {
        let mut case = Self::new("planted", [1, 1, 96], &[Span::whole(len)]);
        let root = 96f64.sqrt();
        let weight = (logit * root / 32.0).sqrt();
        for p in 0..len {
            for pair in 0..32 {
                // From 1 to 0.1 radians a token: a mean over 128 tokens leaves next to nothing.
                let turn = 0.1f64.powf(pair as f64 / 31.0);
                let query = turn * (p as f64 - offset as f64);
                let key = turn * p as f64;
                let at = p * 96 + 2 * pair;
                case.inputs.query[at] = (weight * query.cos()) as f32;
                case.inputs.query[at + 1] = (weight * query.sin()) as f32;
                case.inputs.key[at] = (weight * key.cos()) as f32;
                case.inputs.key[at + 1] = (weight * key.sin()) as f32;
            }
            for x in 64..96 {
                case.inputs.query[p * 96 + x] *= 0.1;
                case.inputs.key[p * 96 + x] *= 0.1;
            }
            case.inputs.query[p * 96 + 64] = root as f32;
            case.inputs.key[p * 96 + 64] = if columns.contains(&p) {
                logit as f32
            } else {
                0.0
            };
            case.inputs.query[p * 96 + 65] = root as f32;
            case.inputs.key[p * 96 + 65] = if p < 128 { 4.0 } else { 0.0 };
        }
        case
    }

    pub(crate) fn query(&self, device: &Device) -> Tensor<4> {
        let p = &self.problem;
        p.tensor(&self.inputs.query, p.query_dims(), p.layout, device)
    }

    pub(crate) fn key(&self, device: &Device) -> Tensor<4> {
        self.cached(&self.inputs.key, device)
    }

    pub(crate) fn value(&self, device: &Device) -> Tensor<4> {
        self.cached(&self.inputs.value, device)
    }

    fn cached(&self, values: &[f32], device: &Device) -> Tensor<4> {
        let p = &self.problem;
        p.tensor(values, p.key_dims(), Layout::Contiguous, device)
    }
}

fn each(heads: usize, rows: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..heads).flat_map(move |h| (0..rows).flat_map(move |i| (0..128).map(move |x| (h, i, x))))
}

/// `kv_len` tokens of a prompt of `prompt`, the last `query_len` of them new.
pub(crate) fn chunk(query_len: usize, kv_len: usize, prompt_len: usize) -> Span {
    Span {
        query_len,
        kv_len,
        prompt_len,
    }
}

/// The cases of the comparison with the oracle.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::structured(4, 2, &[Span::whole(1408)]),
        Case::structured(4, 1, &[Span::whole(1101)]),
        // A prefix that ends inside a block; a chunk that ends inside a group of any stride.
        Case::structured(4, 2, &[chunk(555, 1131, 1131)]),
        Case::structured(4, 2, &[chunk(512, 1152, 2000)]),
        Case::structured(
            4,
            4,
            &[Span::whole(300), chunk(130, 1026, 1026), chunk(7, 775, 775)],
        ),
        Case::random([4, 2, 64], &[Span::whole(1000)]),
        Case::random([3, 1, 32], &[chunk(200, 968, 968), Span::whole(640)]),
        Case::random(
            [2, 1, 64],
            &[
                Span::whole(1),
                Span::whole(9),
                Span::whole(63),
                Span::whole(127),
            ],
        ),
    ]
}

/// Every baseline that looks at its input, at several settings that cut at these lengths.
pub(crate) fn selectors() -> Vec<Baseline> {
    [
        "minference:vertical=60:slash=200",
        "minference:vertical=200:slash=101",
        "flexprefill:min_budget=128",
        "flexprefill:min_budget=256:tau=0:gamma=0.5",
        "flexprefill:min_budget=128:tau=2:gamma=0.7",
        "xattention",
        "xattention:stride=8:threshold=0.5",
        "xattention:stride=64:threshold=0.7",
        "flashprefill-v1",
        "flashprefill-v1:alpha=0.7",
        "flashprefill-v2",
        "flashprefill-v2:alpha=0.7",
    ]
    .map(|text| Baseline::parse(text).expect("a baseline"))
    .to_vec()
}
