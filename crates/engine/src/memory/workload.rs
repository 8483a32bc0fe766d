//! The sizes that a plan follows from, beside the model's configuration.

use sparse_accelerate::{AttentionSettings, KvType, Pattern, select::Granularity};
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

    /// The workload of a sequence of `capacity` tokens in chunks of `chunk`. It has the tables of the largest
    /// selection of the attentions that select for a prompt that fills the cache; a selector's own scores, whose
    /// bytes only it knows, are taken to need as much as heads that choose alone.
    pub fn workload(
        self,
        capacity: usize,
        chunk: usize,
        attentions: &[&AttentionSettings],
    ) -> Workload {
        let sparse = attentions
            .iter()
            .filter(|settings| settings.is_sparse_at(capacity));
        Workload {
            footprint: self,
            capacity,
            chunk,
            choosing: sparse
                .map(|settings| Choosing::of(settings))
                .max()
                .unwrap_or_default(),
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
    /// Who chooses keys from the input.
    pub choosing: Choosing,
}

/// Those who choose keys from the input; the later ones need more memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Choosing {
    /// Nobody.
    #[default]
    Nobody,
    /// The query heads of a KV head together, blocks by their mass.
    KvBlocks,
    /// Every query head, blocks by their mass.
    HeadBlocks,
    /// Every query head, columns and slashes up to the default limits of Interval-Slash.
    Heads,
}

impl Choosing {
    /// Those who choose where attention is not dense.
    fn of(settings: &AttentionSettings) -> Self {
        let alone = settings.heads.is_none() && settings.selector.is_none();
        match settings.pattern {
            Pattern::GroupBlocks if alone => match settings.selection.granularity {
                Granularity::PerKvHead => Self::KvBlocks,
                _ => Self::HeadBlocks,
            },
            _ if settings.selects() => Self::Heads,
            _ => Self::Nobody,
        }
    }
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
