//! The scalars of one selection, and what follows from them.

use sparse_accelerate_contract::{
    Correction, ListLayout, Order, Prices, REPORT_WORDS, Shape, TableLayout, Thresholds, Visible,
    group,
};

use crate::ops::SelectLaunch;

/// The scalars that [`crate::ops::SelectionOps::attend_selected`] needs beside its tensors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SelectOptions {
    /// Softmax scale, `1 / sqrt(d)`.
    pub scale: f32,
    /// Heads that choose: the KV heads or the query heads.
    pub index_heads: usize,
    /// Keys of the longest sequence.
    pub keys: usize,
    /// Most columns of any head.
    pub columns: usize,
    /// Most slashes of any head.
    pub slashes: usize,
    /// See [`crate::select::Selection::column_share`] and [`crate::select::Selection::slash_share`].
    pub thresholds: Thresholds,
    /// Prices of attention's work on the device.
    pub prices: Prices,
    /// The correction for key blocks that are left out.
    pub correction: Correction,
    /// Visible (query, key) pairs of the batch, for one head: causal, and inside the window.
    pub causal_pairs: u64,
    /// Latest keys that a row may see at all, its own included; `None` for all.
    pub window: Option<u32>,
    /// True makes attention and correction read the index in the plan's table, behind its spans, in place of
    /// the one that is built; see [`crate::AttentionSettings::imposed`].
    pub imposed: bool,
    /// Blocks by the mass of the query heads of an index head.
    pub group: bool,
    /// How the kernels run it; `None` for a backend that needs no preparation.
    pub(crate) launch: Option<SelectLaunch>,
}

impl SelectOptions {
    /// The shape of a selection for `query` `[B, Hq, N, d]` over `kv_heads`.
    pub(crate) fn shape(&self, query: [usize; 4], kv_heads: usize) -> Shape {
        Shape {
            batch: query[0],
            heads: query[1],
            kv_heads,
            index_heads: self.index_heads,
            rows: query[2],
            keys: self.keys,
            head_dim: query[3],
            scale: self.scale,
            visible: Visible::of(self.window),
        }
    }

    /// Tells whether the first band of pooled keys is scored with the second-order term.
    pub(crate) fn second_order(&self) -> bool {
        self.correction.order() == Some(Order::Second)
    }

    /// Room for the kept columns and slashes of a head.
    pub(crate) fn lists(&self) -> ListLayout {
        ListLayout {
            columns: self.columns,
            slashes: self.slashes,
        }
    }

    /// Places of the parts of the index.
    pub(crate) fn table(&self, shape: &Shape) -> TableLayout {
        match self.group {
            true => group::table(shape),
            false => TableLayout::new(shape, &self.lists()),
        }
    }

    /// Words of an index head's report.
    pub(crate) fn report_words(&self, shape: &Shape) -> usize {
        match self.group {
            true => group::report_words(shape),
            false => REPORT_WORDS,
        }
    }
}
