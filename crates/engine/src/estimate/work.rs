//! Operations of a stage for one chunk, and the seconds they take.

use serde::Serialize;
use sparse_accelerate::{Span, Visible};
use sparse_accelerate_checkpoint::ModelConfig;
use sparse_accelerate_models::{StagePart, chooses};

use crate::memory::matrices;

/// Bytes per second from GPU to GPU. PCIe 4.0 x16 has 32 GB/s; through the host's memory half of it is left.
pub const LINK: f64 = 16e9;

/// Rate of all products of a whole model on one H100, FLOP/s: Llama-3.1-8B with random weights takes 13.09 s
/// for 131,072 tokens dense and 3.478 s at density 0.046, so 4,504 TFLOP of attention run at 447 TFLOP/s and
/// all the rest, 1,779 TFLOP of products, at 590 (`benches/runs/2026-11-25-h100-models`).
pub const H100_LINEAR: f64 = 590e12;
/// Rate of dense attention in a whole model on one H100, FLOP/s; see [`H100_LINEAR`].
pub const H100_ATTENTION: f64 = 447e12;
/// Rate of attention over that of products, measured on one H100: the ratio of unknown GPUs too, unless they
/// are calibrated.
pub const ATTENTION_RATE: f64 = H100_ATTENTION / H100_LINEAR;
/// Rate of the products of a whole model over that of a single product: 590 of 700 TFLOP/s on the H100
/// (`benches/runs/2026-11-25-h100`).
pub const WHOLE_MODEL_RATE: f64 = H100_LINEAR / 700e12;

/// Rates of a device, FLOP/s.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rates {
    /// Everything that is not attention, counted as its matrix products.
    pub linear: f64,
    /// Attention over all pairs.
    pub dense: f64,
    /// Attention over chosen pairs, counted by those.
    pub sparse: f64,
}

/// Operations of a stage.
#[derive(Debug, Clone, PartialEq)]
pub struct StageWork {
    /// FLOPs of the products of one token.
    token: f64,
    /// FLOPs of attention of one pair in one layer.
    pair: f64,
    /// Layers by the pairs that there are; whether pairs may be left out.
    layers: Vec<(f64, Visible, bool)>,
    /// Bytes of one token's hidden state, handed to the next stage; 0 after the last.
    hidden: f64,
    /// FLOPs of a chunk of any length: the last layer's output and MLP see one row of it.
    once: f64,
}

impl StageWork {
    /// The work of a part of a model with elements of `element` bytes. Leaves out the head, which sees one row
    /// a prompt.
    pub fn new(config: &ModelConfig, part: &StagePart, element: usize) -> Self {
        let [qkv, output, mlp] = matrices(config).map(|elements| 2.0 * elements as f64);
        let layers = part.layers.len() as f64;
        let narrow = if part.output { output + mlp } else { 0.0 };
        Self {
            token: layers * (qkv + output + mlp) - narrow,
            pair: 4.0 * (config.heads * config.head_dim) as f64,
            layers: by_visibility(config, part),
            hidden: match part.output {
                true => 0.0,
                false => (config.hidden_size * element) as f64,
            },
            once: narrow,
        }
    }

    /// FLOPs of the products of `rows` tokens.
    pub fn linear(&self, rows: usize) -> f64 {
        self.token * rows as f64 + self.once
    }

    /// FLOPs of attention of a chunk at `density`, a share of the pairs that the model lets its rows see in layers where some may be left
    /// out.
    pub fn attention(&self, before: usize, rows: usize, density: f64) -> f64 {
        let [chosen, all] = self.pairs(before, rows);
        self.pair * (chosen * density + all)
    }

    /// Pairs of a chunk over all layers: where some may be left out, and elsewhere.
    fn pairs(&self, before: usize, rows: usize) -> [f64; 2] {
        let span = Span {
            query_len: rows,
            kv_len: before + rows,
            prompt_len: before + rows,
        };
        let each = self.layers.iter();
        each.fold([0.0; 2], |[chosen, all], (layers, visible, chooses)| {
            let pairs = layers * visible.pairs(&span) as f64;
            match chooses {
                true => [chosen + pairs, all],
                false => [chosen, all + pairs],
            }
        })
    }

    /// Seconds of a chunk of `rows` tokens after `before` others at `density`; 1 is dense.
    pub fn seconds(&self, rates: &Rates, before: usize, rows: usize, density: f64) -> f64 {
        let rate = match density < 1.0 {
            true => rates.sparse,
            false => rates.dense,
        };
        let [chosen, all] = self.pairs(before, rows);
        let attention = self.pair * (chosen * density / rate + all / rates.dense);
        self.linear(rows) / rates.linear + attention
    }

    /// Seconds until the hidden states of `rows` tokens are on the next device.
    pub fn transfer(&self, rows: usize) -> f64 {
        self.hidden * rows as f64 / LINK
    }
}

/// The layers of a part by what their rows see.
fn by_visibility(config: &ModelConfig, part: &StagePart) -> Vec<(f64, Visible, bool)> {
    let mut found: Vec<(f64, Visible, bool)> = Vec::new();
    for layer in &config.attention[part.layers.clone()] {
        let visible = Visible::of(layer.window);
        match found.iter_mut().find(|(_, other, _)| *other == visible) {
            Some((layers, ..)) => *layers += 1.0,
            None => found.push((1.0, visible, chooses(&config.attention, *layer))),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use sparse_accelerate_checkpoint::LayerAttention;

    use super::*;
    use crate::memory::tests::llama;

    #[test]
    fn operations_of_llama_8b() {
        let work = StageWork::new(&llama(), &StagePart::whole(32), 2);
        // 6.98e9 weights of hidden layers; the last layer's output and MLP see one row.
        let last = 4096.0 * 4096.0 + 3.0 * 4096.0 * 14336.0;
        let token = 2.0 * (32.0 * (4096.0 * 6144.0 + last) - last);
        assert_eq!(work.linear(1), token + 2.0 * last);
        assert!((work.linear(131_072) / 1e12 - 1779.0).abs() < 0.1);
        // 2 N^2 * 4096 * 32 = 4503.6e12, and its diagonal.
        assert!((work.attention(0, 131_072, 1.0) / 1e12 - 4503.6).abs() < 0.1);
        assert_eq!(work.transfer(8192), 0.0);
    }

    #[test]
    fn chunks_add_up_to_the_prompt() {
        for (window, pairs) in [(None, 500_500.0), (Some(100), 95_050.0)] {
            let config = ModelConfig {
                attention: vec![LayerAttention::within(window); 32],
                ..llama()
            };
            let work = StageWork::new(&config, &StagePart::whole(32), 2);
            let attention = |before, rows| work.attention(before, rows, 1.0);
            let whole = attention(0, 1000);
            assert_eq!(whole, 4.0 * 32.0 * 4096.0 * pairs);
            assert_eq!(attention(0, 600) + attention(600, 400), whole);
        }
    }

    #[test]
    fn layers_with_a_window_beside_others_leave_nothing_out() {
        let local = LayerAttention::within(Some(100));
        let mut attention = vec![local; 32];
        attention[5] = LayerAttention::FULL;
        let config = ModelConfig {
            attention,
            ..llama()
        };
        let work = StageWork::new(&config, &StagePart::whole(32), 2);
        let pair = 4.0 * 4096.0;
        let expected = pair * (500_500.0 * 0.1 + 31.0 * 95_050.0);
        assert!((work.attention(0, 1000, 0.1) / expected - 1.0).abs() < 1e-12);
        let rates = Rates {
            linear: f64::INFINITY,
            dense: 1e12,
            sparse: 5e11,
        };
        let seconds = pair * (500_500.0 * 0.1 / 5e11 + 31.0 * 95_050.0 / 1e12);
        assert!((work.seconds(&rates, 0, 1000, 0.1) / seconds - 1.0).abs() < 1e-12);
    }

    #[test]
    fn stages_add_up_to_the_model() {
        let config = llama();
        let part = |layers, input, output| StagePart {
            layers,
            input,
            output,
        };
        let whole = StageWork::new(&config, &StagePart::whole(32), 2);
        let first = StageWork::new(&config, &part(0..20, true, false), 2);
        let last = StageWork::new(&config, &part(20..32, false, true), 2);
        let sum = first.linear(100) + last.linear(100);
        assert!((sum / whole.linear(100) - 1.0).abs() < 1e-12);
        // 64 MiB a chunk of 8,192.
        assert_eq!(first.transfer(8192), f64::from(64 << 20) / LINK);
        let rates = Rates {
            linear: 1e12,
            dense: 5e11,
            sparse: 4e11,
        };
        let dense = first.linear(64) / 1e12 + first.attention(0, 64, 1.0) / 5e11;
        assert_eq!(first.seconds(&rates, 0, 64, 1.0), dense);
        let sparse = first.linear(64) / 1e12 + first.attention(0, 64, 0.5) / 4e11;
        assert_eq!(first.seconds(&rates, 0, 64, 0.5), sparse);
    }
}
