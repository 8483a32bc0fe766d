//! A Burn model of somebody's own, with one call swapped: its attention chooses its keys from the input.
//!
//! The model is a small pre-norm decoder made of Burn's modules; nothing of this repository but the crate
//! `sparse-accelerate` is in it. The same weights run the same prompt densely and under a limit for the error of its outputs.
//!
//! ```sh
//! cargo run --release -p sparse-accelerate --example own_model -- 2048 0.05
//! ```

use std::{collections::BTreeMap, env, error::Error, time::Instant};

use burn::{
    module::Module,
    nn::{
        Embedding, EmbeddingConfig, Linear, LinearConfig, RmsNorm, RmsNormConfig, RotaryEncoding,
        RotaryEncodingConfig,
    },
    tensor::{Device, Int, Tensor, activation::silu},
};
use sparse_accelerate::{
    AttentionMode, AttentionPlan, AttentionSettings, HeadRecord, Heads, Preset, SelectionRecord,
    Span, Visible, attend_selected,
};

const LAYERS: usize = 2;
const HIDDEN: usize = 256;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 64;
const VOCAB: usize = 512;

#[derive(Module, Debug)]
struct Block {
    norm: RmsNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    mlp_norm: RmsNorm,
    up: Linear,
    down: Linear,
}

impl Block {
    fn new(device: &Device) -> Self {
        let linear = |from, to| LinearConfig::new(from, to).with_bias(false).init(device);
        let norm = || RmsNormConfig::new(HIDDEN).init(device);
        Self {
            norm: norm(),
            query: linear(HIDDEN, HEADS * HEAD_DIM),
            key: linear(HIDDEN, KV_HEADS * HEAD_DIM),
            value: linear(HIDDEN, KV_HEADS * HEAD_DIM),
            output: linear(HEADS * HEAD_DIM, HIDDEN),
            mlp_norm: norm(),
            up: linear(HIDDEN, 4 * HIDDEN),
            down: linear(4 * HIDDEN, HIDDEN),
        }
    }

    fn forward(
        &self,
        x: Tensor<3>,
        rotary: &RotaryEncoding,
        layer: usize,
        plan: &AttentionPlan,
    ) -> Result<(Tensor<3>, SelectionRecord), Box<dyn Error>> {
        let [batch, rows, _] = x.dims();
        let normed = self.norm.forward(x.clone());
        let heads = |t: Tensor<3>, n| t.reshape([batch, rows, n, HEAD_DIM]).swap_dims(1, 2);
        let query = rotary.forward(heads(self.query.forward(normed.clone()), HEADS));
        let key = rotary.forward(heads(self.key.forward(normed.clone()), KV_HEADS));
        let value = heads(self.value.forward(normed), KV_HEADS);

        // Here stood `attention(query, key, value, ..)` of `burn::tensor::module`.
        let attended = attend_selected(query, &key, &value, None, &plan.layer(layer)?)?;

        let context = attended.output.swap_dims(1, 2);
        let x = x + self
            .output
            .forward(context.reshape([batch, rows, HEADS * HEAD_DIM]));
        let up = silu(self.up.forward(self.mlp_norm.forward(x.clone())));
        Ok((x + self.down.forward(up), attended.record))
    }
}

#[derive(Module, Debug)]
struct Model {
    embedding: Embedding,
    blocks: Vec<Block>,
    rotary: RotaryEncoding,
}

impl Model {
    fn new(positions: usize, device: &Device) -> Self {
        Self {
            embedding: EmbeddingConfig::new(VOCAB, HIDDEN).init(device),
            blocks: (0..LAYERS).map(|_| Block::new(device)).collect(),
            rotary: RotaryEncodingConfig::new(positions, HEAD_DIM).init(device),
        }
    }

    /// Hidden states `[1, rows, HIDDEN]`, and what the heads chose.
    fn forward(
        &self,
        ids: Tensor<2, Int>,
        settings: &AttentionSettings,
    ) -> Result<(Tensor<3>, Vec<HeadRecord>), Box<dyn Error>> {
        let spans = [Span::whole(ids.dims()[1])];
        let heads = Heads::new(HEADS, KV_HEADS, HEAD_DIM);
        let plan = AttentionPlan::new(settings, &spans, heads, Visible::Causal, &ids.device())?;
        let mut x = self.embedding.forward(ids);
        let mut records = Vec::new();
        for (layer, block) in self.blocks.iter().enumerate() {
            let (next, record) = block.forward(x, &self.rotary, layer, &plan)?;
            records.push(record);
            x = next;
        }
        let mut heads = Vec::new();
        for record in records {
            heads.extend(record.read()?);
        }
        Ok((x, heads))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let rows: usize = arguments.next().map_or(Ok(2048), |text| text.parse())?;
    let error: Option<f32> = arguments.next().map(|text| text.parse()).transpose()?;

    let device = Device::default();
    device.seed(1);
    let model = Model::new(rows, &device);
    let ids: Vec<i32> = (0..rows)
        .map(|i| ((i * i + 7 * i) % VOCAB) as i32)
        .collect();
    let ids = Tensor::<1, Int>::from_data(ids.as_slice(), &device).reshape([1, rows]);

    let mut chosen = Preset::Balanced.settings();
    chosen.mode = AttentionMode::Sparse;
    if let Some(error) = error {
        chosen.selection.error = error;
    }
    let run = |settings: &AttentionSettings| {
        let start = Instant::now();
        let (hidden, heads) = model.forward(ids.clone(), settings)?;
        let hidden: Vec<f32> = hidden
            .try_into_data()?
            .try_to_vec()
            .map_err(|e| format!("{e:?}"))?;
        Ok::<_, Box<dyn Error>>((hidden, heads, start.elapsed()))
    };
    let (dense, _, dense_time) = run(&AttentionSettings::dense())?;
    let (sparse, heads, sparse_time) = run(&chosen)?;

    let apart: f32 = dense
        .iter()
        .zip(&sparse)
        .map(|(d, s)| (d - s).powi(2))
        .sum();
    let whole: f32 = dense.iter().map(|d| d * d).sum();
    println!("{rows} tokens, dense {dense_time:.2?}, chosen {sparse_time:.2?}");
    println!(
        "relative L2 error of the hidden states: {:.2e}",
        (apart / whole).sqrt()
    );
    let mut mix = BTreeMap::new();
    for head in &heads {
        *mix.entry(head.choice.name()).or_insert(0) += 1;
    }
    println!("patterns of {} heads: {mix:?}", heads.len());
    for head in heads {
        println!(
            "layer {} head {}: {}, density {:.3}, error {:.3} ({})",
            head.layer,
            head.head,
            head.choice.name(),
            head.density,
            head.error,
            head.why
        );
    }
    Ok(())
}
