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
mod shape;
mod slot;

use burn::tensor::{DType, Device, Tensor};
use layer::Layer;
pub use shape::{CacheShape, KvType};
use slot::Slot;

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
    layers: Vec<Slot>,
    /// Keys and values of one layer of an int8 cache, written out; made when a chunk first needs them.
    elements: Option<[Tensor<4>; 2]>,
    lens: Vec<usize>,
    pooled: PooledLayers,
    device: Device,
}

impl KvCache {
    /// Tokens that can be taken back from the end of every sequence ([`KvCache::truncate`]) of a cache with windows, in all until as many
    /// have been appended again.
    pub const TAKEN_BACK: usize = slot::SPARE;

    /// Tells whether a layer with a window of so many keys lets go of keys in a cache of `capacity` tokens.
    pub fn lets_go(window: usize, capacity: usize) -> bool {
        slot::rows(Some(window), capacity) < capacity
    }

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
        Self::with_windows(shape, &vec![None; shape.layers], kv, dtype, device)
    }

    /// An empty cache of layers of which some let go of the keys that their window hides: such a layer takes the
    /// memory of its window and a few hundred tokens ([`CacheShape::within`]), however long the sequences become. `windows` has the window
    /// of every layer, in keys.
    ///
    /// The chunks of such a layer are planned by [`KvCache::plan`] with its window as [`Visible::Window`]. The plan then counts
    /// positions from the first key held ([`AttentionPlan::firsts`]), a pattern's sinks among them, and so do [`KvCache::key`] and
    /// [`KvCache::value`].
    ///
    /// # Errors
    /// As [`KvCache::new`] or [`KvCache::new_int8`]; windows of another number of layers, or of 0 keys.
    pub fn with_windows(
        shape: &CacheShape,
        windows: &[Option<usize>],
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
        if windows.len() != shape.layers || windows.contains(&Some(0)) {
            return Err(AttentionError::Setting {
                op: "kv cache",
                field: "windows",
                got: format!("{windows:?}"),
                limit: format!(
                    "a window of at least 1 key, or none, for each of {} layers",
                    shape.layers
                ),
                hint: "take the windows from the model's configuration",
            });
        }
        ops::check_type("kv cache", device, dtype)?;
        let layer = |&window: &Option<usize>| {
            let [batch, kv_heads, capacity, dim] = dims;
            let rows = slot::rows(window, capacity);
            let dims = [batch, kv_heads, rows, dim];
            let layer = match kv {
                KvType::Model => Layer::elements(dims, dtype, device),
                KvType::Int8 => Layer::int8(dims, dtype, device),
            };
            // One that has room for every token lets go of none.
            let window = window.filter(|&window| Self::lets_go(window, capacity));
            Slot::new(layer, window, batch)
        };
        let layers: Vec<Slot> = device
            .memory_persistent_allocations(windows, |windows| windows.iter().map(layer).collect());
        let whole = layers
            .iter()
            .filter(|slot: &&Slot| slot.window().is_none())
            .count();
        Ok(Self {
            shape: *shape,
            kv,
            first: 0,
            layers,
            elements: None,
            lens: vec![0; shape.batch],
            pooled: PooledLayers::new(dims, whole),
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

    /// The plan of the next chunk: `query_lens` new tokens per sequence of prompts of `prompt_lens`. It serves the layers of which rows
    /// see these keys.
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
        let mut spans = self.spans(query_lens, prompt_lens)?;
        let firsts = self.firsts(visible, &spans);
        let prompts = prompt_lens.to_vec();
        for (span, first) in spans.iter_mut().zip(&firsts) {
            span.kv_len -= first;
            span.prompt_len = span.prompt_len.saturating_sub(*first);
        }
        AttentionPlan::of_held(
            settings,
            &spans,
            (firsts, prompts),
            heads,
            visible,
            &self.device,
        )
    }

    /// The first token of each sequence that layers of this visibility are to hold for a chunk.
    fn firsts(&self, visible: Visible, spans: &[Span]) -> Vec<usize> {
        let bounded = |slot: &&Slot| slot.window().is_some() && slot.window() == visible.window();
        let slots: Vec<&Slot> = self.layers.iter().filter(bounded).collect();
        let first = |(b, span): (usize, &Span)| {
            let each = slots.iter();
            let each = each.map(|slot| slot.first(b, span.offset(), span.query_len));
            each.max().unwrap_or(0)
        };
        spans.iter().enumerate().map(first).collect()
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
    /// ([`AttentionError::CacheOrder`]) or is not of its window ([`AttentionError::CacheWindow`]), or shapes and types that do not fit.
    pub fn append(
        &mut self,
        layer: usize,
        key: Tensor<4>,
        value: Tensor<4>,
        plan: &AttentionPlan,
    ) -> Result<(), AttentionError> {
        let at = self.begins(layer, plan)?;
        let slot = &mut self.layers[at];
        slot.begin(plan).append(key, value, plan)?;
        slot.fill(plan);
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
        let slot = &mut self.layers[at];
        let query = slot.begin(plan).append_rotated(qkv, rotation, plan)?;
        slot.fill(plan);
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
    fn begins(&mut self, layer: usize, plan: &AttentionPlan) -> Result<usize, AttentionError> {
        let at = self.held(layer)?;
        self.check_batch(plan)?;
        let hint = "make a plan for every chunk with `KvCache::plan`, append to every layer once, and \
                    `advance` after the last";
        self.layers[at].settle();
        self.layers[at].check_begin(layer, plan)?;
        let held = self.lens.iter().zip(self.layers[at].written());
        let begins = plan.spans().iter().zip(plan.firsts());
        for (sequence, ((span, first), (&len, &written))) in begins.zip(held).enumerate() {
            let expected = first + span.offset();
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

    /// Attends over a layer that holds the chunk of `plan` already, with its pooled keys kept for the next
    /// chunk; as [`attend_selected`], whose record comes where heads choose their keys.
    ///
    /// # Errors
    /// A layer that is not there, does not end with the chunk ([`AttentionError::CacheOrder`]) or has let go of it
    /// ([`AttentionError::CacheWindow`]), or as [`attend_selected`].
    pub fn attend(
        &mut self,
        layer: usize,
        query: Tensor<4>,
        plan: &AttentionPlan,
    ) -> Result<(Tensor<4>, Option<SelectionRecord>), AttentionError> {
        let at = self.held(layer)?;
        self.check_batch(plan)?;
        for (sequence, (expected, &held)) in plan.lens().zip(self.layers[at].written()).enumerate()
        {
            if held != expected {
                return Err(AttentionError::CacheOrder {
                    op: "attend",
                    sequence,
                    held,
                    expected,
                    hint: "append the keys and values of the chunk to the layer first",
                });
            }
        }
        self.layers[at].check_held(layer, plan)?;
        let attended = self.attend_at(at, layer, query, plan)?;
        self.layers[at].settle();
        Ok(attended)
    }

    /// [`KvCache::attend`] after its checks of the cache.
    fn attend_at(
        &mut self,
        at: usize,
        layer: usize,
        query: Tensor<4>,
        plan: &AttentionPlan,
    ) -> Result<(Tensor<4>, Option<SelectionRecord>), AttentionError> {
        let slot = &self.layers[at];
        // Of a layer with a window, whose rows are not those of the others.
        let mut own = None;
        let (key, value) = match slot.layer() {
            Layer::Elements(key, value) => (key, value),
            Layer::Int8(int8) => {
                int8.check(&query, plan)?;
                if let Some(options) = int8.options(&query, plan) {
                    return Ok((int8.attend(query, plan, options), None));
                }
                let [key, value] = match slot.window() {
                    Some(_) => own.insert(int8.elements(false)),
                    None => self.elements.get_or_insert_with(|| int8.elements(true)),
                };
                int8.write([key, value], plan);
                (&*key, &*value)
            }
        };
        let planned = plan.layer(layer)?;
        if !plan.selects() {
            return Ok((attend(query, key, value, &planned)?, None));
        }
        // A layer that is dense by setting pools nothing, nor does one whose keys a selector chooses, or whose keys move.
        let pooled = match planned.selection() {
            Some(selection) if slot.window().is_none() => {
                let means = selection.options.group.then(|| key.dtype());
                let before = self.layers[..at].iter();
                let at = before.filter(|slot| slot.window().is_none()).count();
                self.pooled.of(at, means, &key.device())
            }
            _ => None,
        };
        let selected = attend_selected(query, key, value, pooled, &planned)?;
        Ok((selected.output, Some(selected.record)))
    }

    /// The keys of a layer, `[B, Hk, capacity, d]`; only the first `lens` tokens are meaningful, and of a layer that lets go of keys those
    /// that a plan of its window counts, until the chunk has been attended to. While the handle is alive, an append copies them. Of an int8 cache, a copy in the model's type.
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
        Ok(match (self.layers[self.held(layer)?].layer(), part) {
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
        let lens: Vec<usize> = plan.lens().collect();
        let chunk = plan.spans().iter().zip(&lens);
        for (sequence, ((span, &len), &held)) in chunk.zip(&self.lens).enumerate() {
            let begins = len - span.query_len;
            if held != begins {
                return Err(order(sequence, held, begins, hint));
            }
            let longest = self
                .layers
                .iter()
                .map(|slot| slot.written()[sequence])
                .max();
            if longest != Some(len) {
                let hint = "append the chunk to the layers first";
                return Err(order(sequence, held, len, hint));
            }
        }
        for slot in &mut self.layers {
            slot.settle();
        }
        self.lens = lens;
        Ok(())
    }

    /// Forgets what comes after the first `len` tokens of every sequence; the memory stays. False, and every token forgotten, where a
    /// layer's window has let go of keys that the next token sees: more than the last [`KvCache::TAKEN_BACK`] tokens cannot be taken
    /// back from such a layer.
    #[must_use = "where it is false the cache is empty"]
    pub fn truncate(&mut self, len: usize) -> bool {
        let shorter: Vec<usize> = self.lens.iter().map(|&held| len.min(held)).collect();
        // A chunk that was begun and not counted is forgotten too.
        let kept = len == 0 || self.layers.iter().all(|slot| slot.can_truncate(&shorter));
        match kept {
            true => self.cut(shorter),
            false => self.clear(),
        }
        kept
    }

    /// Forgets every token; the memory stays.
    pub fn clear(&mut self) {
        self.cut(vec![0; self.lens.len()]);
    }

    fn cut(&mut self, lens: Vec<usize>) {
        for slot in &mut self.layers {
            slot.truncate(&lens);
        }
        self.pooled
            .truncate(lens.iter().copied().max().unwrap_or(0));
        self.lens = lens;
    }
}
