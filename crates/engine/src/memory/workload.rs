//! What a plan is made for.

use sparse_accelerate::{AttentionSettings, KvType};
use sparse_accelerate_models::MLP_ROWS;

/// The sizes a plan is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// Bytes of one element of weights and activations.
    pub element: usize,
    /// Type of the cache.
    pub kv: KvType,
    /// Tokens the KV cache holds.
    pub capacity: usize,
    /// Tokens of the largest prefill chunk.
    pub chunk: usize,
    /// Tokens the MLP handles at a time.
    pub mlp_rows: usize,
    /// Whether heads choose their keys from the input.
    pub selects: bool,
    /// Whether it runs on a GPU: a runtime beside the tensors, memory in whole pages, scratch of products.
    pub gpu: bool,
}

impl Workload {
    /// On a GPU, dense, cache in the weights' type, default rows of the MLP.
    pub fn new(element: usize, capacity: usize, chunk: usize) -> Self {
        Self {
            element,
            kv: KvType::Model,
            capacity,
            chunk,
            mlp_rows: MLP_ROWS,
            selects: false,
            gpu: true,
        }
    }

    /// With the tables of a selection where these settings select for a prompt that fills the cache.
    pub fn with_attention(self, settings: &AttentionSettings) -> Self {
        let selects = settings.selects() && settings.is_sparse_at(self.capacity);
        Self { selects, ..self }
    }
}
