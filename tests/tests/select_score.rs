//! Shares of key blocks, against f64 on hostile shapes; every plan that a device has, twice: right, and
//! bitwise equal. Pooled blocks that are not whole, or that a window hides from all rows, are NaN, and so is
//! the output.
#![cfg(any(feature = "wgpu", feature = "cuda-runtime"))]

use burn::tensor::DType;
use cubecl::{client::Client, ir::AddressType};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sparse_accelerate_kernels::select::{BLOCK, Rules, Shape, Visible, score};
use sparse_accelerate_tests::{
    launches::{self, BEYOND},
    problem::round,
    selection,
};

/// Relative error of a share: that of its exponent, which is a difference of two numbers of some tens.
const TOLERANCE: f64 = 2e-4;

/// One problem; `spans` are new rows and all keys of every sequence.
struct Case {
    heads: [usize; 2],
    index_heads: usize,
    head_dim: usize,
    spans: Vec<(usize, usize)>,
    gauss: bool,
    variants: usize,
    window: Option<u32>,
}

/// Inputs, rounded to the element type.
struct Inputs {
    query: Vec<f32>,
    pooled: Vec<f32>,
    capacity: usize,
    weights: Vec<f32>,
    rules: Vec<u32>,
}

impl Case {
    fn shape(&self) -> Shape {
        let [heads, kv_heads] = self.heads;
        Shape {
            batch: self.spans.len(),
            heads,
            kv_heads,
            index_heads: self.index_heads,
            rows: self.spans.iter().map(|s| s.0).max().unwrap_or(0),
            keys: self.spans.iter().map(|s| s.1).max().unwrap_or(0),
            head_dim: self.head_dim,
            scale: 1.0 / (self.head_dim as f32).sqrt(),
            visible: Visible::of(self.window),
        }
    }

    /// First key that the row at a position sees.
    fn first(&self, position: usize) -> usize {
        let hidden = |window| (position + 1).saturating_sub(window as usize);
        self.window.map_or(0, hidden)
    }

    fn inputs(&self, dtype: DType) -> Inputs {
        let (shape, d) = (self.shape(), self.head_dim);
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut normal = || (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0;
        let mut query = Vec::new();
        for &(n, _) in &self.spans {
            for _ in 0..shape.heads {
                for row in 0..shape.rows {
                    let x = |x: f32| if row < n { round(x, dtype) } else { f32::NAN };
                    query.extend((0..d).map(|_| x(normal())));
                }
            }
        }
        let capacity = shape.key_blocks() + 1;
        let mut pooled = Vec::new();
        for &(n, kv_len) in &self.spans {
            for _ in 0..shape.kv_heads {
                for block in 0..capacity {
                    let seen = (block + 1) * BLOCK > self.first(kv_len - n);
                    let whole = (block + 1) * BLOCK <= kv_len && seen;
                    let x = |x: f32| if whole { x } else { f32::NAN };
                    pooled.extend((0..d).map(|_| x(normal())));
                    pooled.extend((0..d).map(|_| x(normal().abs())));
                    pooled.extend((0..d).map(|_| f32::NAN));
                }
            }
        }
        // The last vector keeps one half of the elements, as a band of rotations does.
        let weight = |v: usize, i: usize| f32::from(u8::from(v == 0 || (i % d) < d / 2));
        let (sinks, windows) = ([0, 1, 128, 300], [1, 64, 130, 500]);
        Inputs {
            query,
            pooled,
            capacity,
            weights: (0..self.variants * d).map(|i| weight(i / d, i)).collect(),
            rules: (0..self.index_heads)
                .flat_map(|h| {
                    let rules = Rules {
                        sink: sinks[h % 4],
                        window: windows[(h + 1) % 4],
                        ..selection::rules()
                    };
                    rules.words()
                })
                .collect(),
        }
    }

    /// `[B, Hq, T, C]`; operands rounded to `operand`, as matrix units take them.
    fn exact(&self, inputs: &Inputs, operand: DType) -> Vec<f64> {
        let (shape, d) = (self.shape(), self.head_dim);
        let (blocks, group) = (shape.key_blocks(), shape.heads / shape.kv_heads);
        let mut out = vec![0.0; shape.batch * shape.heads * shape.query_blocks() * blocks];
        for bh in 0..shape.batch * shape.heads {
            let (b, h) = (bh / shape.heads, bh % shape.heads);
            let (n, kv_len) = self.spans[b];
            let pooled_head = (b * shape.kv_heads + h / group) * inputs.capacity;
            let (sink, window) = Rules::of(&inputs.rules, h / shape.heads_per_index()).local();
            for t in 0..shape.query_blocks() {
                let mut rows: Vec<usize> = (0..16)
                    .map(|i| BLOCK * t + 4 + 8 * i)
                    .filter(|r| *r < n)
                    .collect();
                if rows.is_empty() && BLOCK * t < n {
                    rows.push(BLOCK * t);
                }
                let first = kv_len - n + BLOCK * t;
                // Where the rule's window is no shorter than the visible one, all keys are local.
                let local = self
                    .window
                    .is_some_and(|visible| window >= visible as usize);
                let all: Vec<usize> = (0..blocks)
                    .filter(|j| (j + 1) * BLOCK <= first && !local)
                    .filter(|j| (j + 1) * BLOCK > sink && j * BLOCK + window < first + 1)
                    .collect();
                for v in 0..self.variants {
                    let mut means = vec![0.0; blocks];
                    for row in &rows {
                        let q = &inputs.query[(bh * shape.rows + row) * d..][..d];
                        let seen = self.first(kv_len - n + row);
                        let visible = |j: usize| {
                            let (from, end) = (j * BLOCK, (j + 1) * BLOCK);
                            (from..end).filter(|key| *key >= seen).count()
                        };
                        let candidates = all.iter().copied().filter(|j| visible(*j) > 0);
                        let candidates: Vec<usize> = candidates.collect();
                        let logit = |j: usize| {
                            let k = &inputs.pooled[(pooled_head + j) * 3 * d..][..2 * d];
                            let mut z = 0.0;
                            for i in 0..d {
                                let weighted = round(q[i] * inputs.weights[v * d + i], operand);
                                z += f64::from(weighted) * f64::from(round(k[i], operand));
                                if self.gauss && v == 0 {
                                    let square =
                                        round(q[i] * (q[i] * (shape.scale * 0.5)), operand);
                                    z += f64::from(square) * f64::from(round(k[d + i], operand));
                                }
                            }
                            z * f64::from(shape.scale) + (visible(j) as f64 / BLOCK as f64).ln()
                        };
                        let logits: Vec<f64> = candidates.iter().map(|j| logit(*j)).collect();
                        let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                        let total: f64 = logits.iter().map(|z| (z - highest).exp()).sum();
                        for (j, z) in candidates.iter().zip(&logits) {
                            means[*j] += (z - highest).exp() / total / rows.len() as f64;
                        }
                    }
                    let at = (bh * shape.query_blocks() + t) * blocks;
                    for (j, mean) in means.iter().enumerate() {
                        out[at + j] = f64::max(out[at + j], *mean);
                    }
                }
            }
        }
        out
    }

    fn run(&self, client: &Client, plan: &score::Plan, inputs: &Inputs, dtype: DType) -> Vec<f32> {
        let (shape, d) = (self.shape(), self.head_dim);
        let dims = [shape.batch, shape.heads, shape.rows, d];
        let len = shape.batch * shape.heads * shape.query_blocks() * shape.key_blocks();
        let spans = launches::span_table(&self.spans);
        let out = launches::upload(client, &vec![f32::NAN; len + BEYOND]);
        let tensors = score::Tensors {
            query: launches::tensor(&launches::upload_as(client, &inputs.query, dtype), dims),
            pooled: launches::buffer(
                &launches::upload(client, &inputs.pooled),
                inputs.pooled.len(),
            ),
            capacity: inputs.capacity,
            table: launches::buffer(&launches::upload(client, &spans), spans.len()),
            rules: launches::buffer(&launches::upload(client, &inputs.rules), inputs.rules.len()),
            weights: launches::buffer(
                &launches::upload(client, &inputs.weights),
                inputs.weights.len(),
            ),
            scores: launches::buffer(&out, len),
            address: AddressType::U32,
        };
        score::launch(client, &shape, plan, launches::elem(dtype), tensors);
        let mut values = launches::read(client, out, DType::F32);
        assert!(
            values.split_off(len).iter().all(|x| x.is_nan()),
            "wrote past the end"
        );
        values
    }

    fn check(&self) {
        launches::each_device(|name, client, dtype| self.on(name, client, dtype));
    }

    fn on(&self, name: &str, client: &Client, dtype: DType) {
        let inputs = self.inputs(dtype);
        let elem = launches::elem(dtype);
        let plans = score::plans(
            &self.shape(),
            self.variants,
            self.gauss,
            elem,
            client.properties(),
        )
        .expect("plans");
        assert!(!plans.is_empty(), "{name}: no plan");
        for plan in plans {
            let name = format!(
                "{name}/{dtype:?}/{:?}/{:?}/{:?}",
                self.spans, self.window, plan.blueprint
            );
            let operand = if plan.blueprint.tile.mma {
                dtype
            } else {
                DType::F32
            };
            let exact = self.exact(&inputs, operand);
            let some = exact.iter().any(|x| *x > 0.0);
            assert!(some || self.window.is_some(), "{name}: no candidates");
            let first = self.run(client, &plan, &inputs, dtype);
            for (i, (got, want)) in first.iter().zip(&exact).enumerate() {
                let off = (f64::from(*got) - want).abs();
                assert!(
                    off <= TOLERANCE * want,
                    "{name}: score {i}: {got} for {want}"
                );
            }
            let second = self.run(client, &plan, &inputs, dtype);
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&first), bits(&second), "{name}: two runs differ");
        }
    }
}

#[test]
fn a_ragged_batch_behind_prefixes() {
    Case {
        heads: [4, 1],
        index_heads: 1,
        head_dim: 128,
        spans: vec![(300, 1500), (1, 1000), (130, 131), (133, 700), (260, 1300)],
        gauss: true,
        variants: 1,
        window: None,
    }
    .check();
}

#[test]
fn two_bands() {
    Case {
        heads: [2, 2],
        index_heads: 2,
        head_dim: 32,
        spans: vec![(520, 1500), (64, 900)],
        gauss: false,
        variants: 2,
        window: None,
    }
    .check();
}

#[test]
fn two_bands_and_the_second_order() {
    Case {
        heads: [6, 2],
        index_heads: 6,
        head_dim: 80,
        spans: vec![(127, 1200), (129, 640)],
        gauss: true,
        variants: 2,
        window: None,
    }
    .check();
}

#[test]
fn more_key_blocks_than_a_tile() {
    Case {
        heads: [7, 1],
        index_heads: 1,
        head_dim: 32,
        spans: vec![(65, 17000)],
        gauss: true,
        variants: 1,
        window: None,
    }
    .check();
}

#[test]
fn more_heads_than_a_cube_takes() {
    Case {
        heads: [16, 2],
        index_heads: 16,
        head_dim: 40,
        spans: vec![(140, 2000)],
        gauss: true,
        variants: 1,
        window: None,
    }
    .check();
}

/// Windows that end inside a key block, at its end, within the local keys, before them; several query blocks
/// to a cube.
#[test]
fn windows_of_keys() {
    for (heads, index_heads, head_dim, variants, windows) in [
        ([4, 1], 4, 40, 1, [1, 200, 513]),
        ([2, 2], 2, 32, 2, [100, 384, 1399]),
    ] {
        for window in windows {
            Case {
                heads,
                index_heads,
                head_dim,
                spans: vec![(300, 1400), (130, 131), (260, 1100), (2, 900)],
                gauss: variants == 1,
                variants,
                window: Some(window),
            }
            .check();
        }
    }
}

/// The walk over key blocks begins far behind the first tile of them.
#[test]
fn a_window_far_behind_the_first_key() {
    Case {
        heads: [7, 1],
        index_heads: 1,
        head_dim: 32,
        spans: vec![(65, 17000)],
        gauss: false,
        variants: 1,
        window: Some(9001),
    }
    .check();
}
