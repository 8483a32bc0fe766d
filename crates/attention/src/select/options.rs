//! The scalars of one selection.

/// What [`crate::SparseAttentionOps::attend_selected`] needs beside its tensors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SelectOptions {
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
    /// See [`crate::select::Selection::column_share`].
    pub column_share: f32,
    /// See [`crate::select::Selection::slash_share`].
    pub slash_share: f32,
    /// Prices: dense tile, tile, column, row.
    pub costs: [f32; 4],
    /// Order of the correction, 0 to 2.
    pub order: u32,
    /// Causal (query, key) pairs of the batch, for one head.
    pub causal_pairs: u64,
}
