//! Looking into a pass: queries and cache of each layer, and hidden states of more rows than the last.
//!
//! For measurements. A pass that nobody looks into takes one branch a layer for it.

use std::ops::Range;

use burn::tensor::Tensor;
use sparse_accelerate::{AttentionPlan, KvCache};

use crate::error::ModelError;

/// Tensors that attention of one layer is about to read.
#[derive(Debug)]
pub struct LayerView<'a> {
    /// The decoder layer.
    pub layer: usize,
    /// Rotated queries of the chunk, `[B, Hq, N, d]`. Where a model rotates a part of each head, the elements of its queries and keys
    /// are in an order of their own, the same for both.
    pub query: &'a Tensor<4>,
    /// The cache, with the chunk's keys and values of this layer. [`KvCache::lens`] counts the chunk
    /// only after its last layer; the plan's spans have its real lengths.
    pub cache: &'a KvCache,
    /// Spans and index of the chunk, as this layer has them: positions are counted from [`AttentionPlan::firsts`].
    pub plan: &'a AttentionPlan,
}

/// Sees every layer of a pass.
pub trait LayerObserver {
    /// Called once a layer, before its attention. Handles of the cache's tensors must not be kept:
    /// the next chunk would copy the cache.
    ///
    /// # Errors
    /// Whatever the observer cannot do; it ends the pass.
    fn layer(&mut self, view: &LayerView<'_>) -> Result<(), ModelError>;
}

/// Parts to take from a pass beside its cache.
#[derive(Default)]
pub struct Watch<'a> {
    /// Rows of the chunk, of a batch of one, whose hidden states are wanted in place of the last's.
    pub rows: Option<Range<usize>>,
    /// Sees every layer.
    pub observer: Option<&'a mut dyn LayerObserver>,
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("rows", &self.rows)
            .field("observer", &self.observer.is_some())
            .finish()
    }
}
