//! The size of a cache, its element type, and the bytes that they come to.

use serde::Serialize;

use super::slot;

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

    /// The shape of layers with a window in a cache of this one, which keep little more than the window shows; without a window the
    /// same.
    #[must_use]
    pub fn within(&self, window: Option<usize>) -> Self {
        Self {
            capacity: slot::rows(window, self.capacity),
            ..*self
        }
    }

    /// The shape of the keys and values that a layer with a window takes beside its own while a chunk of `rows` tokens is in hand; `None` if
    /// it has room for them.
    #[must_use]
    pub fn beside(&self, window: Option<usize>, rows: usize) -> Option<Self> {
        let capacity = slot::spilled(window, self.capacity, rows)?;
        Some(Self {
            layers: 1,
            capacity,
            ..*self
        })
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
