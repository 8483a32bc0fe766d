//! Costs of layers, for comparing stages.

use sparse_accelerate_checkpoint::ModelConfig;
use sparse_accelerate_models::StagePart;

use crate::estimate::{Rates, StageWork};

/// Costs of a prefill by layers, in any one unit that a device's speed is counted in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerCosts {
    /// Cost of a hidden layer, the mean of them where they differ.
    pub layer: f64,
    /// Cost that the input layer adds to its stage.
    pub input: f64,
    /// Cost that the output layer adds to its stage. Below 0: the last hidden layer's output and MLP see one row of
    /// every chunk.
    pub output: f64,
}

impl LayerCosts {
    /// Costs in FLOPs of products of `tokens` tokens at `density`; one FLOP of attention costs `attention` of
    /// them.
    pub fn new(config: &ModelConfig, tokens: usize, density: f64, attention: f64) -> Self {
        let of = |output| {
            let part = StagePart {
                layers: 0..config.layers,
                input: false,
                output,
            };
            let work = StageWork::new(config, &part, 1);
            work.linear(tokens) + attention * work.attention(0, tokens, density)
        };
        let layers = of(false);
        Self {
            layer: layers / config.layers as f64,
            input: 0.0,
            output: of(true) - layers,
        }
    }

    /// As [`LayerCosts::new`] where a device has these rates, and that device's speed in its unit.
    pub fn at(config: &ModelConfig, tokens: usize, density: f64, rates: &Rates) -> (Self, f64) {
        let attention = match density < 1.0 {
            true => rates.sparse,
            false => rates.dense,
        };
        let costs = Self::new(config, tokens, density, rates.linear / attention);
        (costs, rates.linear)
    }

    /// Cost of a stage.
    pub fn of(&self, part: &StagePart) -> f64 {
        let end = |has: bool, cost: f64| if has { cost } else { 0.0 };
        let ends = end(part.input, self.input) + end(part.output, self.output);
        self.layer * part.layers.len() as f64 + ends
    }
}
