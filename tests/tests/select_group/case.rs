//! A problem, its inputs and what the kernels make of it.

use burn::tensor::DType;
use cubecl::{client::Client, ir::AddressType};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sparse_accelerate_contract::{
    Choice, Rules, Sequence, Shape, Visible,
    group::{self as contract, GroupWords},
    table,
};
use sparse_accelerate_kernels::select::{View, group};
use sparse_accelerate_tests::{
    launches::{self, BEYOND},
    problem::round,
};

/// A NaN that no kernel writes.
pub(crate) const UNTOUCHED: u32 = 0xffc0_1234;

/// One problem; `spans` are new rows and all keys of every sequence.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) heads: [usize; 2],
    /// Every query head chooses, not all of a KV head together.
    pub(crate) alone: bool,
    pub(crate) head_dim: usize,
    pub(crate) spans: Vec<(usize, usize)>,
    pub(crate) window: Option<u32>,
    pub(crate) local: (u32, u32),
    /// Recall that is aimed at, and the largest error.
    pub(crate) recall: (f32, f32),
    /// Last rows that see everything.
    pub(crate) last: usize,
    /// How large logits are.
    pub(crate) magnitude: f32,
    /// Logits of all queries and the first 40 keys beside that.
    pub(crate) lean: f32,
}

/// Outputs of the kernels.
pub(crate) struct Found {
    /// Mean queries of a query tile and head.
    pub(crate) parts: usize,
    pub(crate) means: Vec<f32>,
    pub(crate) shares: Vec<f32>,
    pub(crate) cuts: Vec<u32>,
    pub(crate) measured: Vec<f32>,
    pub(crate) table: Vec<u32>,
    pub(crate) report: Vec<f32>,
}

impl Case {
    pub(crate) fn shape(&self) -> Shape {
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
    pub(crate) fn inputs(&self, dtype: DType) -> [Vec<f32>; 3] {
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

    pub(crate) fn tables(&self) -> [Vec<u32>; 3] {
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

    pub(crate) fn run(&self, client: &Client, dtype: DType, inputs: &[Vec<f32>; 3]) -> Found {
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
}
