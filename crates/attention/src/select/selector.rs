//! Selectors from outside: code that chooses the keys of a chunk by itself and hands over an index.

use std::{fmt, ops::Deref, sync::Arc};

use burn::tensor::Tensor;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::{error::AttentionError, index::TileIndex, span::Span};

/// Chooses the keys of every layer of a chunk in place of a pattern: a published method that is compared, or
/// one of your own. Settings hold it as a [`SharedSelector`].
///
/// It is asked in every layer of a chunk of at least [`LEAST_ROWS`](crate::select::LEAST_ROWS) new rows, after
/// the chunk's keys were appended and before its attention. Shorter chunks are dense, and so is decoding.
/// Its time is part of the layer's.
///
/// ```
/// use burn::tensor::Tensor;
/// use sparse_accelerate::{
///     AttentionError, AttentionSettings, IndexSelector, Span,
///     index::{Builder, TileIndex},
/// };
///
/// /// Lets the rows of a tile see themselves and the first 16 keys.
/// #[derive(Debug)]
/// struct Local;
///
/// impl IndexSelector for Local {
///     fn name(&self) -> String {
///         "local".into()
///     }
///
///     fn index(
///         &self,
///         _layer: usize,
///         _query: &Tensor<4>,
///         _key: &Tensor<4>,
///         spans: &[Span],
///     ) -> Result<Option<TileIndex>, AttentionError> {
///         let mut builder = Builder::new(spans, 1, None)?; // one choice for all heads
///         for sequence in 0..spans.len() {
///             let mut tile = 0;
///             while builder.tile_positions(sequence, tile).is_some() {
///                 builder.set((sequence, 0, tile), [(0, 16)], [])?;
///                 tile += 1;
///             }
///         }
///         builder.finish().map(Some)
///     }
/// }
///
/// let settings = AttentionSettings::selected_by(Local);
/// assert!(settings.selects());
/// ```
pub trait IndexSelector: fmt::Debug + Send + Sync {
    /// Gives its name with every parameter that changes a choice. Two selectors of one name count as equal.
    fn name(&self) -> String;

    /// Builds the index of the keys that layer `layer`, counted from 0, sees; `None` computes it densely.
    ///
    /// # Shapes
    /// `query` `[B, Hq, N, d]`, rotated, right-padded to the longest span; `key` `[B, Hk, S, d]` with
    /// `S >= kv_len` of every span, whose new rows are its last `query_len`. The index is for these spans, with
    /// one head, the KV heads or a divisor of them, or the query heads.
    ///
    /// # Errors
    /// Chunks that it cannot choose for, and failures of the device.
    fn index(
        &self,
        layer: usize,
        query: &Tensor<4>,
        key: &Tensor<4>,
        spans: &[Span],
    ) -> Result<Option<TileIndex>, AttentionError>;

    /// Gives the selector that lets no rows see everything for standing last in the prompt; `None` where it has
    /// no such rows, as by default.
    fn without_last(&self) -> Option<SharedSelector> {
        None
    }
}

/// An [`IndexSelector`] as settings and plans hold it. Clones share it; equality is that of the names.
///
/// Settings that are written out have its name. A name cannot be read back: settings of a file have no
/// selector.
#[derive(Clone)]
pub struct SharedSelector(Arc<dyn IndexSelector>);

impl SharedSelector {
    /// Takes a selector to share.
    pub fn new(selector: impl IndexSelector + 'static) -> Self {
        Self(Arc::new(selector))
    }
}

impl Deref for SharedSelector {
    type Target = dyn IndexSelector;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl fmt::Debug for SharedSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedSelector").field(&self.name()).finish()
    }
}

impl PartialEq for SharedSelector {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Serialize for SharedSelector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name())
    }
}

impl<'de> Deserialize<'de> for SharedSelector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Err(D::Error::custom(format!(
            "selector: `{name}` is code, which cannot be read from a file; set the field `selector` in the \
             program, or name the selector in a list of attentions"
        )))
    }
}
