//! One decoder layer, and what a pass over the layers carries.
//!
//! The last layer of a model narrows the stream: every row attends there, because its keys and
//! values must reach the cache, but only the last row of each sequence is projected, goes through
//! the MLP and leaves the layer.

use std::ops::Range;

use burn::{
    module::Module,
    tensor::{Int, Tensor},
};
use sparse_accelerate::{KvCache, SelectionRecord};

use super::{Attention, Mlp};
use crate::{error::ModelError, kinds::KindPasses, observe::LayerObserver};

/// State that one chunk carries through the layers.
pub(crate) struct Pass<'a> {
    /// Plans and rotations of the layers.
    pub(crate) kinds: &'a KindPasses,
    pub(crate) cache: &'a mut KvCache,
    /// Choices of the heads of each layer so far.
    pub(crate) selection: Vec<SelectionRecord>,
    pub(crate) observer: Option<&'a mut dyn LayerObserver>,
}

/// Which rows of `[B * N, ..]` are the last of their sequence.
// One value a chunk: its size does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone)]
pub(crate) enum LastRows {
    /// Every row: each sequence has one.
    All,
    /// One sequence: this row.
    One(usize),
    /// These rows, one a sequence.
    Each(Tensor<1, Int>),
    /// These rows of one sequence, in place of its last.
    Range(Range<usize>),
}

impl LastRows {
    /// `[B * N, width]` to `[B, width]`, or to the rows asked for.
    pub(crate) fn take(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::All => x,
            Self::One(row) => x.slice_dim(0, *row..*row + 1),
            Self::Each(rows) => x.select(0, rows.clone()),
            Self::Range(rows) => x.slice_dim(0, rows.clone()),
        }
    }
}

/// Attention and MLP with their norms and residual sums.
#[derive(Module, Debug)]
pub(crate) struct DecoderLayer {
    pub(crate) attention: Attention,
    pub(crate) mlp: Mlp,
}

impl DecoderLayer {
    /// `x` `[B * N, hidden]` to the same, or to `[B, hidden]` when `narrow` is given.
    pub(crate) fn forward(
        &self,
        index: usize,
        x: Tensor<2>,
        pass: &mut Pass<'_>,
        narrow: Option<&LastRows>,
    ) -> Result<Tensor<2>, ModelError> {
        let context = self.attention.context(index, x.clone(), pass)?;
        let (x, context) = match narrow {
            Some(last) => (last.take(x), last.take(context)),
            None => (x, context),
        };
        let x = x + self.attention.output(context)?;
        let added = self.mlp.forward(x.clone())?;
        Ok(x + added)
    }
}
