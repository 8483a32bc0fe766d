//! A preallocated KV cache, updated in place.
//!
//! One key and one value tensor per layer, `[B, Hk, capacity, d]`, allocated once. Appending takes
//! the tensor out, hands it to the operation as its only owner and puts the result back, so nothing
//! is copied unless somebody holds another handle; [`crate::diagnostics::append_copies`] counts
//! the times that happened.
//!
//! What outlives a layer is allocated outside the pools that activations are carved from: there a tensor
//! of 64 MiB would hold a page of 113. Its memory goes back to the device with the first
//! `Device::memory_cleanup` after the cache was dropped.

use burn::tensor::{DType, Device, Tensor};

use crate::{
    attend::{append_unchecked, attend, check_append},
    error::AttentionError,
    plan::AttentionPlan,
    rope,
    select::{PooledLayers, SelectionRecord, attend_selected},
    span::{MAX_KV_LEN, Span},
};

/// The size of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheShape {
    /// Decoder layers.
    pub layers: usize,
    /// Sequences.
    pub batch: usize,
    /// KV heads per layer.
    pub kv_heads: usize,
    /// Tokens per sequence.
    pub capacity: usize,
    /// Elements per head.
    pub head_dim: usize,
}

impl CacheShape {
    /// Bytes of the whole cache with elements of `element` bytes.
    pub fn bytes(&self, element: usize) -> u64 {
        [
            self.batch,
            self.kv_heads,
            self.capacity,
            self.head_dim,
            element,
            2,
        ]
        .iter()
        .fold(self.layers as u64, |acc, &n| acc.saturating_mul(n as u64))
    }
}

/// Keys and values of every layer, and how many tokens of each sequence are filled.
#[derive(Debug)]
pub struct KvCache {
    shape: CacheShape,
    /// Number of the first layer held.
    first: usize,
    layers: Vec<(Tensor<4>, Tensor<4>)>,
    lens: Vec<usize>,
    pooled: PooledLayers,
}

impl KvCache {
    /// Allocates an empty cache of zeros.
    ///
    /// # Errors
    /// A dimension of 0, or a capacity past [`MAX_KV_LEN`].
    pub fn new(shape: &CacheShape, dtype: DType, device: &Device) -> Result<Self, AttentionError> {
        let dims = [shape.batch, shape.kv_heads, shape.capacity, shape.head_dim];
        if dims.contains(&0) || shape.layers == 0 || shape.capacity > MAX_KV_LEN {
            return Err(AttentionError::Setting {
                op: "kv cache",
                field: "shape",
                got: format!("{shape:?}"),
                limit: format!("at least 1 in every dimension, at most {MAX_KV_LEN} tokens"),
                hint: "take the dimensions from the model's configuration",
            });
        }
        let zeros = || Tensor::<4>::zeros(dims, (device, dtype));
        let layers = device.memory_persistent_allocations(shape.layers, |layers| {
            (0..layers).map(|_| (zeros(), zeros())).collect()
        });
        Ok(Self {
            shape: *shape,
            first: 0,
            layers,
            lens: vec![0; shape.batch],
            pooled: PooledLayers::new(dims, shape.layers),
        })
    }

    /// Counts its layers from `first`: the cache of a stage, whose layers keep their numbers in the model.
    #[must_use]
    pub fn with_first_layer(mut self, first: usize) -> Self {
        self.first = first;
        self
    }

    /// Tokens each sequence can hold.
    pub fn capacity(&self) -> usize {
        self.shape.capacity
    }

    /// The size it was allocated with.
    pub fn shape(&self) -> CacheShape {
        self.shape
    }

    /// Tokens each sequence holds.
    pub fn lens(&self) -> &[usize] {
        &self.lens
    }

    /// Spans of the next chunk: `query_lens` new tokens per sequence of prompts of `prompt_lens`.
    ///
    /// # Errors
    /// A batch of another size, or a sequence that would not fit.
    pub fn spans(
        &self,
        query_lens: &[usize],
        prompt_lens: &[usize],
    ) -> Result<Vec<Span>, AttentionError> {
        for got in [query_lens.len(), prompt_lens.len()] {
            if got != self.lens.len() {
                return Err(AttentionError::Shape {
                    op: "kv cache",
                    what: "the batch",
                    got: got.to_string(),
                    expected: self.lens.len().to_string(),
                    hint: "a cache serves the batch it was made for",
                });
            }
        }
        let sequences = self
            .lens
            .iter()
            .zip(query_lens)
            .zip(prompt_lens)
            .enumerate();
        sequences
            .map(|(sequence, ((&len, &query_len), &prompt_len))| {
                let kv_len = len.saturating_add(query_len);
                if kv_len > self.shape.capacity {
                    return Err(AttentionError::CacheFull {
                        sequence,
                        needed: kv_len,
                        capacity: self.shape.capacity,
                    });
                }
                Ok(Span {
                    query_len,
                    kv_len,
                    prompt_len,
                })
            })
            .collect()
    }

    /// Appends a chunk's keys and values `[B, Hk, N, d]` to one layer, in place.
    ///
    /// # Errors
    /// A layer that is not there, or shapes and types that do not fit.
    pub fn append(
        &mut self,
        layer: usize,
        key: Tensor<4>,
        value: Tensor<4>,
        plan: &AttentionPlan,
    ) -> Result<(), AttentionError> {
        let (keys, values) = self.layer(layer)?;
        // Both are checked before either is written; a handle kept for undoing would force a copy.
        check_append(keys, &key, plan)?;
        check_append(values, &value, plan)?;
        keys.inplace(|cache| append_unchecked(cache, key, plan));
        values.inplace(|cache| append_unchecked(cache, value, plan));
        Ok(())
    }

    /// Rotates the queries and keys of a chunk and appends keys and values to one layer, in place.
    ///
    /// `qkv` and `rotation` are those of [`crate::rope_append`], which makes the queries returned here.
    ///
    /// # Errors
    /// A layer that is not there, or as [`crate::rope_append`].
    pub fn append_rotated(
        &mut self,
        layer: usize,
        qkv: Tensor<2>,
        rotation: &Tensor<2>,
        plan: &AttentionPlan,
    ) -> Result<Tensor<4>, AttentionError> {
        let (keys, values) = self.layer(layer)?;
        rope::check(&qkv, rotation, keys, values, plan)?;
        let caches = (keys.extract(), values.extract());
        let (query, key, value) = rope::unchecked(qkv, rotation, caches, plan);
        (*keys, *values) = (key, value);
        Ok(query)
    }

    fn layer(&mut self, layer: usize) -> Result<&mut (Tensor<4>, Tensor<4>), AttentionError> {
        let (first, layers) = (self.first, self.layers.len());
        let held = layer.checked_sub(first);
        held.and_then(|at| self.layers.get_mut(at))
            .ok_or(AttentionError::Shape {
                op: "kv cache",
                what: "the layer",
                got: layer.to_string(),
                expected: format!("{first} to {}", first + layers - 1),
                hint: "allocate the cache for the model's layers",
            })
    }

    /// Attends over a layer that holds the chunk of `plan` already, with its pooled keys kept for the next
    /// chunk; as [`attend_selected`], whose record comes where heads choose their keys.
    ///
    /// # Errors
    /// A layer that is not there, or as [`attend_selected`].
    pub fn attend(
        &mut self,
        layer: usize,
        query: Tensor<4>,
        plan: &AttentionPlan,
    ) -> Result<(Tensor<4>, Option<SelectionRecord>), AttentionError> {
        self.layer(layer)?;
        let at = layer - self.first;
        let (key, value) = &self.layers[at];
        if !plan.selects() {
            return Ok((attend(query, key, value, plan)?, None));
        }
        // A layer that is dense by setting pools nothing.
        let pooled = match plan.selects_in(layer) {
            true => self.pooled.of(at, &key.device()),
            false => None,
        };
        let selected = attend_selected(query, key, value, pooled, layer, plan)?;
        Ok((selected.output, Some(selected.record)))
    }

    /// The keys of a layer, `[B, Hk, capacity, d]`; only the first `lens` tokens are meaningful.
    pub fn key(&self, layer: usize) -> &Tensor<4> {
        &self.layers[layer - self.first].0
    }

    /// The values of a layer, `[B, Hk, capacity, d]`; only the first `lens` tokens are meaningful.
    pub fn value(&self, layer: usize) -> &Tensor<4> {
        &self.layers[layer - self.first].1
    }

    /// Counts a chunk's tokens as held, after its last layer.
    pub fn advance(&mut self, plan: &AttentionPlan) {
        for (len, span) in self.lens.iter_mut().zip(plan.spans()) {
            *len = span.kv_len;
        }
    }

    /// Forgets what comes after the first `len` tokens of every sequence; the memory stays.
    pub fn truncate(&mut self, len: usize) {
        for held in &mut self.lens {
            *held = len.min(*held);
        }
        self.pooled.truncate(len);
    }

    /// Forgets every token; the memory stays.
    pub fn clear(&mut self) {
        self.truncate(0);
    }
}
