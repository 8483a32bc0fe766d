//! Tensors of the checkpoint, parameter count and size of the KV cache, derived from a config.
//!
//! Tensor names are those of the Hugging Face classes. Matrices are `[out, in]`, row-major.

use super::{EMBEDDING, FINAL_NORM, HEAD, ModelConfig, WeightDtype, parse};
use crate::CheckpointError;

impl ModelConfig {
    /// Parses and checks the text of a config.json.
    ///
    /// # Errors
    /// [`CheckpointError::Config`] names the field, its value and what is expected.
    pub fn from_json(text: &str) -> Result<Self, CheckpointError> {
        Ok(parse::parse(text)?)
    }

    /// Number of trained values, a tied table counted once.
    #[must_use]
    pub fn parameter_count(&self) -> u64 {
        let product = |shape: &[usize]| shape.iter().map(|&dim| dim as u64).product::<u64>();
        let block: u64 = self
            .layer_tensors(0)
            .map(|(_, shape)| product(&shape))
            .sum();
        let ends: u64 = self
            .end_tensors()
            .iter()
            .map(|(_, shape)| product(shape))
            .sum();
        self.layers as u64 * block + ends
    }

    /// Bytes that one token takes in the KV cache over all layers, at `dtype`.
    #[must_use]
    pub fn kv_bytes_per_token(&self, dtype: WeightDtype) -> u64 {
        2 * (self.layers * self.kv_heads * self.head_dim * dtype.size()) as u64
    }

    /// Every tensor of the checkpoint with its shape, embedding first, then the blocks in order.
    #[must_use]
    pub fn expected_tensors(&self) -> Vec<(String, Vec<usize>)> {
        let mut all: Vec<(String, Vec<usize>)> = Vec::new();
        let mut ends = self
            .end_tensors()
            .into_iter()
            .map(|(name, shape)| (name.to_owned(), shape));
        all.extend(ends.next());
        all.extend((0..self.layers).flat_map(|layer| self.layer_tensors(layer)));
        all.extend(ends);
        all
    }

    fn end_tensors(&self) -> Vec<(&'static str, Vec<usize>)> {
        let table = vec![self.vocab_size, self.hidden_size];
        let mut ends = vec![
            (EMBEDDING, table.clone()),
            (FINAL_NORM, vec![self.hidden_size]),
        ];
        if !self.tied_embeddings {
            ends.push((HEAD, table));
        }
        ends
    }

    fn layer_tensors(&self, layer: usize) -> impl Iterator<Item = (String, Vec<usize>)> + '_ {
        self.layer_weights().flat_map(move |weight| {
            let name = weight.name(layer);
            let bias = weight
                .bias
                .then(|| (format!("{name}.bias"), vec![weight.rows]));
            [Some((format!("{name}.weight"), weight.shape())), bias]
                .into_iter()
                .flatten()
        })
    }
}
