//! A preallocated KV cache, updated in place.
//!
//! One key and one value tensor per layer, `[B, Hk, capacity, d]`, allocated once; in an int8 cache
//! ([`KvType::Int8`]) words of them and their scales. Appending takes
//! the tensor out, hands it to the operation as its only owner and puts the result back, so nothing
//! is copied unless somebody holds another handle; [`crate::diagnostics::append_copies`] counts
//! the times that happened.
//!
//! Tensors that outlive a layer are allocated outside the pools that activations are carved from: there a tensor
//! of 64 MiB would hold a page of 113. Its memory goes back to the device with the first
//! `Device::memory_cleanup` after the cache was dropped.
//!
//! Int8 is made from f32 where keys and values are written. Decoding reads it as it is, as does
//! attention on the CPU. A prefill kernel meets every key once per query tile, and would convert it as
//! often: its layer is written out first, in one pass, into a pair of tensors that all layers share.

mod layer;

use burn::tensor::{DType, Device, Tensor};
use layer::Layer;
use serde::Serialize;

use crate::{
    attend::{HEAD_DIMS, attend, same},
    error::AttentionError,
    heads::Heads,
    ops::{self, CachePart},
    plan::AttentionPlan,
    select::{PooledLayers, SelectionRecord, attend_selected},
    settings::AttentionSettings,
    span::{MAX_KV_LEN, Span},
    visible::Visible,
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

    /// Bytes of the whole cache that keeps keys and values as `kv`, where the model computes with elements
    /// of `element` bytes. For [`KvType::Int8`] words, scales, and the elements of one layer.
    pub fn bytes_as(&self, kv: KvType, element: usize) -> u64 {
        match kv {
            KvType::Model => self.bytes(element),
            KvType::Int8 => {
                let scales = Self {
                    head_dim: 1,
                    ..*self
                };
                let one_layer = Self { layers: 1, ..*self };
                let parts = [self.bytes(1), scales.bytes(4), one_layer.bytes(element)];
                parts.into_iter().fold(0, u64::saturating_add)
            }
        }
    }
}

/// How a cache keeps keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum KvType {
    /// In the model's element type.
    #[default]
    Model,
    /// As signed bytes with one scale per token and KV head, `max |x| / 127` over the head: half the memory
    /// of 16-bit elements, and 4 bytes a scale. An element is off by at most half a scale, about `max |x| /
    /// 254`. A key or value with an element that is not finite gives NaN.
    Int8,
}

impl KvType {
    /// The type in one word: `model` or `int8`.
    pub fn name(self) -> &'static str {
        match self {
            KvType::Model => "model",
            KvType::Int8 => "int8",
        }
    }
}

/// Keys and values of every layer, and how many tokens of each sequence are filled.
///
/// A chunk is one plan, made by [`KvCache::plan`]; one [`KvCache::step`] for every layer (or an append and
/// then [`KvCache::attend`]); and [`KvCache::advance`]. Calls in another order are refused.
#[derive(Debug)]
pub struct KvCache {
    shape: CacheShape,
    kv: KvType,
    /// Number of the first layer held.
    first: usize,
    layers: Vec<Layer>,
    /// Keys and values of one layer of an int8 cache, written out; made when a chunk first needs them.
    elements: Option<[Tensor<4>; 2]>,
    lens: Vec<usize>,
    /// Tokens that each layer has of each sequence: those of `lens`, and of the chunk in hand once it is
    /// appended.
    written: Vec<Vec<usize>>,
    pooled: PooledLayers,
    device: Device,
}

impl KvCache {
    /// Allocates an empty cache of zeros.
    ///
    /// # Errors
    /// A dimension of 0, a capacity past [`MAX_KV_LEN`], or an element type other than f32, f16 and bf16 or
    /// that the device lacks.
    pub fn new(shape: &CacheShape, dtype: DType, device: &Device) -> Result<Self, AttentionError> {
        Self::with_type(shape, KvType::Model, dtype, device)
    }

    /// The same for an int8 cache, of a model that computes in `dtype`; see [`KvType::Int8`].
    ///
    /// # Errors
    /// As [`KvCache::new`], or a head dimension that is not a multiple of 8.
    pub fn new_int8(
        shape: &CacheShape,
        dtype: DType,
        device: &Device,
    ) -> Result<Self, AttentionError> {
        Self::with_type(shape, KvType::Int8, dtype, device)
    }

    /// An empty cache of either type, of a model that computes in `dtype`.
    ///
    /// # Errors
    /// As [`KvCache::new`] or [`KvCache::new_int8`].
    pub fn with_type(
        shape: &CacheShape,
        kv: KvType,
        dtype: DType,
        device: &Device,
    ) -> Result<Self, AttentionError> {
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
        if kv == KvType::Int8 && !shape.head_dim.is_multiple_of(HEAD_DIMS.2) {
            return Err(AttentionError::Setting {
                op: "kv cache",
                field: "head_dim",
                got: shape.head_dim.to_string(),
                limit: format!("a multiple of {} in an int8 cache", HEAD_DIMS.2),
                hint: "keep keys and values in the model's type",
            });
        }
        ops::check_type("kv cache", device, dtype)?;
        let layer = |_| match kv {
            KvType::Model => Layer::elements(dims, dtype, device),
            KvType::Int8 => Layer::int8(dims, dtype, device),
        };
        let layers = device
            .memory_persistent_allocations(shape.layers, |layers| (0..layers).map(layer).collect());
        Ok(Self {
            shape: *shape,
            kv,
            first: 0,
            layers,
            elements: None,
            lens: vec![0; shape.batch],
            written: vec![vec![0; shape.batch]; shape.layers],
            pooled: PooledLayers::new(dims, shape.layers),
            device: device.clone(),
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

    /// How it keeps keys and values.
    pub fn kv_type(&self) -> KvType {
        self.kv
    }

    /// Tokens each sequence holds.
    pub fn lens(&self) -> &[usize] {
        &self.lens
    }

    /// The plan of the next chunk: `query_lens` new tokens per sequence of prompts of `prompt_lens`.
    ///
    /// While decoding, a prompt's length is still that of the prompt, without the tokens that were decoded.
    ///
    /// # Errors
    /// As [`KvCache::spans`] and [`AttentionPlan::new`]; heads of another model than the cache was made for.
    pub fn plan(
        &self,
        settings: &AttentionSettings,
        heads: Heads,
        visible: Visible,
        query_lens: &[usize],
        prompt_lens: &[usize],
    ) -> Result<AttentionPlan, AttentionError> {
        same(
            "kv cache",
            "KV heads and head dim of the plan",
            [heads.kv, heads.dim],
            [self.shape.kv_heads, self.shape.head_dim],
        )?;
        let spans = self.spans(query_lens, prompt_lens)?;
        AttentionPlan::new(settings, &spans, heads, visible, &self.device)
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

    /// Appends a chunk's keys and values to one layer and attends over it: [`KvCache::append`], then
    /// [`KvCache::attend`].
    ///
    /// # Shapes
    /// `query` `[B, Hq, N, d]`, `key`, `value` `[B, Hk, N, d]`, right-padded to the longest span; the result
    /// is `[B, Hq, N, d]`.
    ///
    /// # Errors
    /// As the two.
    pub fn step(
        &mut self,
        layer: usize,
        query: Tensor<4>,
        key: Tensor<4>,
        value: Tensor<4>,
        plan: &AttentionPlan,
    ) -> Result<(Tensor<4>, Option<SelectionRecord>), AttentionError> {
        self.append(layer, key, value, plan)?;
        self.attend(layer, query, plan)
    }

    /// Appends a chunk's keys and values `[B, Hk, N, d]` to one layer, in place.
    ///
    /// # Errors
    /// A layer that is not there, a plan that does not begin where the layer ends
    /// ([`AttentionError::CacheOrder`]), or shapes and types that do not fit.
    pub fn append(
        &mut self,
        layer: usize,
        key: Tensor<4>,
        value: Tensor<4>,
        plan: &AttentionPlan,
    ) -> Result<(), AttentionError> {
        let at = self.begins(layer, plan)?;
        self.layers[at].append(key, value, plan)?;
        self.fill(at, plan);
        Ok(())
    }

    /// Rotates the queries and keys of a chunk and appends keys and values to one layer, in place.
    ///
    /// `qkv` and `rotation` are those of [`crate::rope_append`], which makes the queries returned here.
    ///
    /// # Errors
    /// As [`KvCache::append`] and [`crate::rope_append`].
    pub fn append_rotated(
        &mut self,
        layer: usize,
        qkv: Tensor<2>,
        rotation: &Tensor<2>,
        plan: &AttentionPlan,
    ) -> Result<Tensor<4>, AttentionError> {
        let at = self.begins(layer, plan)?;
        let query = self.layers[at].append_rotated(qkv, rotation, plan)?;
        self.fill(at, plan);
        Ok(query)
    }

    /// Position of a layer among those that are held.
    fn held(&self, layer: usize) -> Result<usize, AttentionError> {
        let held = layer.checked_sub(self.first);
        held.filter(|&at| at < self.layers.len())
            .ok_or(AttentionError::NoLayer {
                layer,
                first: self.first,
                layers: self.layers.len(),
            })
    }

    fn check_batch(&self, plan: &AttentionPlan) -> Result<(), AttentionError> {
        let (got, expected) = (plan.spans().len(), self.lens.len());
        same("kv cache", "the batch of the plan", [got], [expected])
    }

    /// Position of a layer that a chunk may be appended to.
    fn begins(&self, layer: usize, plan: &AttentionPlan) -> Result<usize, AttentionError> {
        let at = self.held(layer)?;
        self.check_batch(plan)?;
        let hint = "make a plan for every chunk with `KvCache::plan`, append to every layer once, and \
                    `advance` after the last";
        let held = self.lens.iter().zip(&self.written[at]);
        for (sequence, (span, (&len, &written))) in plan.spans().iter().zip(held).enumerate() {
            let expected = span.offset();
            for held in [len, written] {
                if held != expected {
                    return Err(AttentionError::CacheOrder {
                        op: "append",
                        sequence,
                        held,
                        expected,
                        hint,
                    });
                }
            }
        }
        Ok(at)
    }

    /// Notes that a layer holds a chunk.
    fn fill(&mut self, at: usize, plan: &AttentionPlan) {
        for (written, span) in self.written[at].iter_mut().zip(plan.spans()) {
            *written = span.kv_len;
        }
    }

    /// Attends over a layer that holds the chunk of `plan` already, with its pooled keys kept for the next
    /// chunk; as [`attend_selected`], whose record comes where heads choose their keys.
    ///
    /// # Errors
    /// A layer that is not there or does not end with the chunk ([`AttentionError::CacheOrder`]), or as
    /// [`attend_selected`].
    pub fn attend(
        &mut self,
        layer: usize,
        query: Tensor<4>,
        plan: &AttentionPlan,
    ) -> Result<(Tensor<4>, Option<SelectionRecord>), AttentionError> {
        let at = self.held(layer)?;
        self.check_batch(plan)?;
        for (sequence, (span, &held)) in plan.spans().iter().zip(&self.written[at]).enumerate() {
            if held != span.kv_len {
                return Err(AttentionError::CacheOrder {
                    op: "attend",
                    sequence,
                    held,
                    expected: span.kv_len,
                    hint: "append the keys and values of the chunk to the layer first",
                });
            }
        }
        let (key, value) = match &self.layers[at] {
            Layer::Elements(key, value) => (key, value),
            Layer::Int8(int8) => {
                int8.check(&query, plan)?;
                if let Some(options) = int8.options(&query, plan) {
                    return Ok((int8.attend(query, plan, options), None));
                }
                let [key, value] = self.elements.get_or_insert_with(|| int8.elements());
                int8.write([key, value], plan);
                (&*key, &*value)
            }
        };
        let planned = plan.layer(layer)?;
        if !plan.selects() {
            return Ok((attend(query, key, value, &planned)?, None));
        }
        // A layer that is dense by setting pools nothing, nor does one whose keys a selector chooses.
        let pooled = match planned.selection() {
            Some(selection) => {
                let means = selection.options.group.then(|| key.dtype());
                self.pooled.of(at, means, &key.device())
            }
            None => None,
        };
        let selected = attend_selected(query, key, value, pooled, &planned)?;
        Ok((selected.output, Some(selected.record)))
    }

    /// The keys of a layer, `[B, Hk, capacity, d]`; only the first `lens` tokens are meaningful. While the
    /// handle is alive, an append copies them. Of an int8 cache, a copy in the model's type.
    ///
    /// # Errors
    /// A layer that is not there.
    pub fn key(&self, layer: usize) -> Result<Tensor<4>, AttentionError> {
        self.part(layer, CachePart::Key)
    }

    /// The values of a layer, as [`KvCache::key`].
    ///
    /// # Errors
    /// A layer that is not there.
    pub fn value(&self, layer: usize) -> Result<Tensor<4>, AttentionError> {
        self.part(layer, CachePart::Value)
    }

    fn part(&self, layer: usize, part: CachePart) -> Result<Tensor<4>, AttentionError> {
        Ok(match (&self.layers[self.held(layer)?], part) {
            (Layer::Elements(key, _), CachePart::Key) => key.clone(),
            (Layer::Elements(_, value), CachePart::Value) => value.clone(),
            (Layer::Int8(int8), part) => int8.copy(part),
        })
    }

    /// Counts a chunk's tokens as held, after its last layer.
    ///
    /// # Errors
    /// A plan of another batch; a plan that does not begin at [`KvCache::lens`], or whose chunk no layer
    /// holds ([`AttentionError::CacheOrder`]).
    pub fn advance(&mut self, plan: &AttentionPlan) -> Result<(), AttentionError> {
        self.check_batch(plan)?;
        let order = |sequence, held, expected, hint| AttentionError::CacheOrder {
            op: "advance",
            sequence,
            held,
            expected,
            hint,
        };
        let hint = "make a plan for every chunk with `KvCache::plan`, and advance once";
        for (sequence, (span, &held)) in plan.spans().iter().zip(&self.lens).enumerate() {
            if held != span.offset() {
                return Err(order(sequence, held, span.offset(), hint));
            }
            let longest = self.written.iter().map(|layer| layer[sequence]).max();
            if longest != Some(span.kv_len) {
                let hint = "append the chunk to the layers first";
                return Err(order(sequence, held, span.kv_len, hint));
            }
        }
        for (len, span) in self.lens.iter_mut().zip(plan.spans()) {
            *len = span.kv_len;
        }
        Ok(())
    }

    /// Forgets what comes after the first `len` tokens of every sequence; the memory stays.
    pub fn truncate(&mut self, len: usize) {
        for held in &mut self.lens {
            *held = len.min(*held);
        }
        // A chunk that was begun and not counted is forgotten too.
        for written in &mut self.written {
            for (written, held) in written.iter_mut().zip(&self.lens) {
                *written = (*written).min(*held);
            }
        }
        self.pooled.truncate(len);
    }

    /// Forgets every token; the memory stays.
    pub fn clear(&mut self) {
        self.truncate(0);
    }
}
