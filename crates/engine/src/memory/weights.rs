//! Bytes of a stage's weights, from the configuration.
//!
//! Matrices and biases are in the model's type, gains of norms in f32. A tied head is the embedding: one
//! table where both ends are on one stage, one each where they are not.

use serde::Serialize;
use sparse_accelerate_checkpoint::{LayerPart, ModelConfig};
use sparse_accelerate_models::StagePart;

use super::{product, sum};

/// Weights of a stage, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Weights {
    /// The embedding table.
    pub embedding: u64,
    /// Hidden layers.
    pub layers: u64,
    /// Final norm, and the head where it is a table of its own.
    pub output: u64,
}

impl Weights {
    /// The weights of a part of a model with elements of `element` bytes.
    pub fn new(config: &ModelConfig, part: &StagePart, element: usize) -> Self {
        let table = product(&[config.vocab_size, config.hidden_size, element]);
        let shared = config.tied_embeddings && part.input;
        let gain = product(&[config.hidden_size, size_of::<f32>()]);
        Self {
            embedding: if part.input { table } else { 0 },
            layers: layer(config, element).saturating_mul(part.layers.len() as u64),
            output: match (part.output, shared) {
                (false, _) => 0,
                (true, true) => gain,
                (true, false) => table.saturating_add(gain),
            },
        }
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        sum(&[self.embedding, self.layers, self.output])
    }
}

/// Elements of the matrices of one hidden layer: query, key and value; output; gate, up and down.
pub(crate) fn matrices(config: &ModelConfig) -> [u64; 3] {
    let elements = |parts: &[LayerPart]| {
        let each = parts.iter().map(|part| {
            let weight = config.layer_weight(*part);
            product(&weight.shape())
        });
        sum(&each.collect::<Vec<_>>())
    };
    [
        elements(&[LayerPart::Query, LayerPart::Key, LayerPart::Value]),
        elements(&[LayerPart::Output]),
        elements(&[LayerPart::Gate, LayerPart::Up, LayerPart::Down]),
    ]
}

fn layer(config: &ModelConfig, element: usize) -> u64 {
    let bytes = config.layer_weights().map(|weight| {
        let bias = if weight.bias { weight.rows as u64 } else { 0 };
        let element = match weight.columns {
            Some(_) => element,
            None => size_of::<f32>(),
        };
        let values = product(&weight.shape()).saturating_add(bias);
        values.saturating_mul(element as u64)
    });
    sum(&bytes.collect::<Vec<_>>())
}
