//! Chunked prefill and decoding with a cache: the calls of a chunk in their order, with rotary positions, and
//! every row checked against a plain dense softmax in f32.
//!
//! The layers are attention alone, with random weights between them; a model puts its norms and its MLP where
//! this example has nothing. In a crate of one's own:
//!
//! ```toml
//! [dependencies]
//! burn = { version = "0.22.1", default-features = false, features = ["flex", "std"] }
//! sparse-accelerate = "0.1" # feature `flex` is the default; `vulkan`, `metal`, `wgpu`, `cuda` add devices
//!
//! # Attention on the CPU is slow without optimisation, in debug builds too.
//! [profile.dev.package."*"]
//! opt-level = 3
//! ```
//!
//! ```sh
//! cargo run --release -p sparse-accelerate --example chunked -- 1500 400
//! ```

use std::{env, error::Error};

use burn::tensor::{DType, Device, Distribution, Tensor};
use sparse_accelerate::{
    AttentionSettings, CacheShape, Heads, KvCache, Pattern, Triangular, Visible, rotation_table,
};

const LAYERS: usize = 2;
const QUERY_HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 64;
const HIDDEN: usize = QUERY_HEADS * HEAD_DIM;
const ROTARY_BASE: f64 = 10_000.0;
const DECODED: usize = 20;

/// Weights of one layer: query, key and value side by side, and the output projection.
struct Layer {
    qkv: Tensor<2>,
    output: Tensor<2>,
}

struct Model {
    layers: Vec<Layer>,
    heads: Heads,
    visible: Visible,
    /// `[positions, HEAD_DIM]`: cosines, then sines. It must reach the last position of any chunk.
    rotation: Tensor<2>,
}

impl Model {
    fn new(positions: usize, visible: Visible, device: &Device) -> Self {
        let weight = |rows, columns| {
            let normal = Distribution::Normal(0.0, 1.0 / (rows as f64).sqrt());
            Tensor::random([rows, columns], normal, (device, DType::F32))
        };
        let layer = |_| Layer {
            qkv: weight(HIDDEN, (QUERY_HEADS + 2 * KV_HEADS) * HEAD_DIM),
            output: weight(HIDDEN, HIDDEN),
        };
        let frequency = |j: usize| ROTARY_BASE.powf(-2.0 * j as f64 / HEAD_DIM as f64);
        let frequencies: Vec<f64> = (0..HEAD_DIM / 2).map(frequency).collect();
        Self {
            layers: (0..LAYERS).map(layer).collect(),
            heads: Heads::new(QUERY_HEADS, KV_HEADS, HEAD_DIM).with_rotary_base(ROTARY_BASE),
            visible,
            rotation: rotation_table(&frequencies, positions, device),
        }
    }

    /// Runs the next rows `[rows, HIDDEN]` of one sequence whose prompt has `prompt_len` tokens.
    fn forward(
        &self,
        mut x: Tensor<2>,
        prompt_len: usize,
        cache: &mut KvCache,
        settings: &AttentionSettings,
    ) -> Result<Tensor<2>, Box<dyn Error>> {
        let rows = x.dims()[0];
        // 1. One plan a chunk, from the cache: it knows where the rows begin.
        let plan = cache.plan(settings, self.heads, self.visible, &[rows], &[prompt_len])?;
        for (number, layer) in self.layers.iter().enumerate() {
            let qkv = x.clone().matmul(layer.qkv.clone());
            // 2. In every layer: rotate to the rows' own positions and append, then attend.
            //    A model that rotates by itself calls `cache.step(number, query, key, value, &plan)`.
            let query = cache.append_rotated(number, qkv, &self.rotation, &plan)?;
            let (context, _record) = cache.attend(number, query, &plan)?;
            let context = context.swap_dims(1, 2).reshape([rows, HIDDEN]);
            x = x + context.matmul(layer.output.clone());
        }
        // 3. After the last layer the rows count as held.
        cache.advance(&plan)?;
        Ok(x)
    }

    /// The same for a whole sequence in one piece, with softmax over a mask: no cache, no plan.
    fn plain(&self, mut x: Tensor<2>, sees: &Tensor<2>) -> Tensor<2> {
        let rows = x.dims()[0];
        for layer in &self.layers {
            let qkv = x.clone().matmul(layer.qkv.clone());
            let all = QUERY_HEADS + 2 * KV_HEADS;
            let heads = qkv.reshape([rows, all, HEAD_DIM]).swap_dims(0, 1);
            let part = |from: usize, to: usize| heads.clone().slice_dim(0, from..to);
            let turned = QUERY_HEADS + KV_HEADS;
            let query = self.rotate(part(0, QUERY_HEADS));
            let repeat = |x: Tensor<3>| {
                let x: Tensor<4> = x.unsqueeze_dim(1);
                let x = x.repeat_dim(1, QUERY_HEADS / KV_HEADS);
                x.reshape([QUERY_HEADS, rows, HEAD_DIM])
            };
            let key = repeat(self.rotate(part(QUERY_HEADS, turned)));
            let value = repeat(part(turned, all));
            let scores = query.matmul(key.swap_dims(1, 2)) / (HEAD_DIM as f64).sqrt();
            let scores = scores + sees.clone().unsqueeze::<3>();
            let weights = burn::tensor::activation::softmax(scores, 2);
            let context = weights.matmul(value).swap_dims(0, 1);
            x = x + context.reshape([rows, HIDDEN]).matmul(layer.output.clone());
        }
        x
    }

    /// Rotation in halves of `[heads, rows, HEAD_DIM]`: pair `j` is `(j, j + HEAD_DIM / 2)`.
    fn rotate(&self, x: Tensor<3>) -> Tensor<3> {
        let (rows, half) = (x.dims()[1], HEAD_DIM / 2);
        let angles = |from: usize| {
            let table = self.rotation.clone();
            table.slice([0..rows, from..from + half]).unsqueeze::<3>()
        };
        let (cos, sin) = (angles(0), angles(half));
        let (a, b) = (
            x.clone().slice_dim(2, 0..half),
            x.slice_dim(2, half..HEAD_DIM),
        );
        let first = a.clone() * cos.clone() - b.clone() * sin.clone();
        Tensor::cat(vec![first, b * cos + a * sin], 2)
    }
}

/// A mask `[rows, rows]` to add to scores: 0 where a row sees a key, else minus infinity.
fn mask(rows: usize, device: &Device, sees: impl Fn(usize, usize) -> bool) -> Tensor<2> {
    let value = |i, j| if sees(i, j) { 0.0 } else { f32::NEG_INFINITY };
    let values: Vec<f32> = (0..rows)
        .flat_map(|i| (0..rows).map(move |j| (i, j)))
        .map(|(i, j)| value(i, j))
        .collect();
    Tensor::<1>::from_data(values.as_slice(), device).reshape([rows, rows])
}

fn run(
    name: &str,
    model: &Model,
    settings: &AttentionSettings,
    [prompt_len, chunk]: [usize; 2],
    sees: impl Fn(usize, usize) -> bool,
    device: &Device,
) -> Result<(), Box<dyn Error>> {
    let total = prompt_len + DECODED;
    let shape = CacheShape {
        layers: LAYERS,
        batch: 1,
        kv_heads: KV_HEADS,
        capacity: total,
        head_dim: HEAD_DIM,
    };
    let mut cache = KvCache::new(&shape, DType::F32, device)?;
    let normal = Distribution::Normal(0.0, 1.0);
    let tokens = Tensor::<2>::random([total, HIDDEN], normal, (device, DType::F32));

    let mut outputs = Vec::new();
    for start in (0..prompt_len).step_by(chunk) {
        let rows = tokens
            .clone()
            .slice_dim(0, start..prompt_len.min(start + chunk));
        outputs.push(model.forward(rows, prompt_len, &mut cache, settings)?);
    }
    // Decoding is dense, under the same visibility; the prompt's length stays that of the prompt.
    let dense = AttentionSettings::dense();
    for at in prompt_len..total {
        let row = tokens.clone().slice_dim(0, at..at + 1);
        outputs.push(model.forward(row, prompt_len, &mut cache, &dense)?);
    }

    let plain = model.plain(tokens, &mask(total, device, sees));
    let apart = (Tensor::cat(outputs, 0) - plain).abs().max();
    let apart: f32 = apart.into_scalar();
    println!("{name}: {total} rows, largest difference from a plain softmax {apart:.1e}");
    if apart.is_nan() || apart > 2e-5 {
        return Err(
            format!("{name}: the difference is {apart}, more than rounding explains").into(),
        );
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let prompt_len: usize = arguments.next().map_or(Ok(1500), |text| text.parse())?;
    let chunk: usize = arguments.next().map_or(Ok(400), |text| text.parse())?;
    let device = Device::flex();
    device.seed(1);
    let lengths = [prompt_len, chunk.max(1)];

    let causal = Model::new(prompt_len + DECODED, Visible::Causal, &device);
    let dense = AttentionSettings::dense();
    let all = |i, j| j <= i;
    run("dense", &causal, &dense, lengths, all, &device)?;

    let triangular = Triangular::default();
    let sparse = AttentionSettings::sparse(Pattern::Triangular(triangular));
    let last = prompt_len.saturating_sub(triangular.last);
    let band = |i: usize, j: usize| {
        j <= i && (j < triangular.sink || i - j < triangular.window || i >= last)
    };
    run("triangular", &causal, &sparse, lengths, band, &device)?;

    let window = 256;
    let sliding = Model::new(prompt_len + DECODED, Visible::Window(window), &device);
    let near = |i: usize, j: usize| j <= i && i - j < window;
    run(
        "dense in a window of 256",
        &sliding,
        &dense,
        lengths,
        near,
        &device,
    )
}
