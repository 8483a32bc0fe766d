//! Tensors of the checkpoint, parameter count and size of the KV cache, derived from a config.
//!
//! Tensor names are those of the Hugging Face classes. Matrices are `[out, in]`, row-major.

use super::{ModelConfig, WeightDtype, parse};
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
            .block_tensors()
            .iter()
            .map(|(_, shape)| product(shape))
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
        let block = self.block_tensors();
        for layer in 0..self.layers {
            all.extend(
                block
                    .iter()
                    .map(|(name, shape)| (format!("model.layers.{layer}.{name}"), shape.clone())),
            );
        }
        all.extend(ends);
        all
    }

    fn end_tensors(&self) -> Vec<(&'static str, Vec<usize>)> {
        let table = vec![self.vocab_size, self.hidden_size];
        let mut ends = vec![
            ("model.embed_tokens.weight", table.clone()),
            ("model.norm.weight", vec![self.hidden_size]),
        ];
        if !self.tied_embeddings {
            ends.push(("lm_head.weight", table));
        }
        ends
    }

    fn block_tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let (query, key) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let projections = [
            ("self_attn.q_proj", query, hidden, self.qkv_bias),
            ("self_attn.k_proj", key, hidden, self.qkv_bias),
            ("self_attn.v_proj", key, hidden, self.qkv_bias),
            ("self_attn.o_proj", hidden, query, self.output_bias),
            ("mlp.gate_proj", inner, hidden, self.mlp_bias),
            ("mlp.up_proj", inner, hidden, self.mlp_bias),
            ("mlp.down_proj", hidden, inner, self.mlp_bias),
        ];
        let mut block = Vec::new();
        for (name, rows, columns, bias) in projections {
            block.push((format!("{name}.weight"), vec![rows, columns]));
            if bias {
                block.push((format!("{name}.bias"), vec![rows]));
            }
        }
        block.push(("input_layernorm.weight".to_owned(), vec![hidden]));
        block.push(("post_attention_layernorm.weight".to_owned(), vec![hidden]));
        block
    }
}
