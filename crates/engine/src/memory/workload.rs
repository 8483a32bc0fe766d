//! The sizes that a plan follows from, beside the model's configuration.

use sparse_accelerate::{AttentionSettings, KvType};
use sparse_accelerate_models::{MLP_ROWS, ModelOptions};

/// Properties of a model as it is loaded: the same for every prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes of one element of weights and activations.
    pub element: usize,
    /// Type of the cache.
    pub kv: KvType,
    /// Tokens the MLP handles at a time.
    pub mlp_rows: usize,
    /// The model runs on a GPU: a runtime beside the tensors, memory in whole pages, scratch of products.
    pub gpu: bool,
}

impl Footprint {
    /// The properties of a model with elements of `element` bytes, loaded with these options.
    pub fn new(element: usize, options: &ModelOptions, gpu: bool) -> Self {
        Self {
            element,
            kv: options.kv,
            mlp_rows: options.mlp_rows,
            gpu,
        }
    }

    /// The workload of a sequence of `capacity` tokens in chunks of `chunk`. It has the tables of a selection
    /// where one of the attentions selects for a prompt that fills the cache; a selector's own scores, whose
    /// bytes only it knows, are taken to need as much.
    pub fn workload(
        self,
        capacity: usize,
        chunk: usize,
        attentions: &[&AttentionSettings],
    ) -> Workload {
        let selects =
            |settings: &&AttentionSettings| settings.selects() && settings.is_sparse_at(capacity);
        Workload {
            footprint: self,
            capacity,
            chunk,
            selects: attentions.iter().any(selects),
        }
    }
}

/// Sizes of a run that a plan is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// The model as it is loaded.
    pub footprint: Footprint,
    /// Tokens the KV cache holds.
    pub capacity: usize,
    /// Tokens of the largest prefill chunk.
    pub chunk: usize,
    /// Keys are chosen from the input.
    pub selects: bool,
}

impl Workload {
    /// A dense run on a GPU: cache in the weights' type, default rows of the MLP.
    pub fn new(element: usize, capacity: usize, chunk: usize) -> Self {
        let footprint = Footprint {
            element,
            kv: KvType::Model,
            mlp_rows: MLP_ROWS,
            gpu: true,
        };
        footprint.workload(capacity, chunk, &[])
    }
}
