//! Memory of heads that choose their keys: held by every layer, and taken by one layer's choice while it
//! runs.
//!
//! Every query head chooses, columns and slashes up to the default limits of Interval-Slash. The lengths are
//! those that the kernels allocate.

use sparse_accelerate::{IntervalSlash, select::BLOCK};
use sparse_accelerate_checkpoint::ModelConfig;
use sparse_accelerate_contract::{
    ListLayout, REPORT_WORDS, Shape, Visible,
    scratch::{POOLED_VECTORS, SelectionWords, WORD_BYTES},
};

use super::product;

/// Mean key, variance and mean value of every key block of one layer, `[Hk, blocks, 3, d]` in f32; the cache
/// keeps them from the first chunk on.
pub(super) fn pooled(config: &ModelConfig, capacity: usize) -> u64 {
    let blocks = capacity.div_ceil(BLOCK);
    product(&[
        config.kv_heads,
        blocks,
        POOLED_VECTORS,
        config.head_dim,
        WORD_BYTES,
    ])
}

/// Tables of one layer's choice for a chunk of `rows` over `keys`, all alive at once; freed with the layer
/// but for the report.
pub(super) fn tables(config: &ModelConfig, rows: usize, keys: usize) -> u64 {
    let limits = IntervalSlash::default();
    let lists = ListLayout {
        columns: limits.columns,
        slashes: limits.slashes,
    };
    let heads = config.heads;
    let shape = Shape {
        batch: 1,
        heads,
        kv_heads: config.kv_heads,
        index_heads: heads,
        rows,
        keys,
        head_dim: config.head_dim,
        scale: 1.0,
        // A window hides keys and takes no less room.
        visible: Visible::Causal,
    };
    // Two launches share the rows' log-sum-exp, the correction keeps a second one.
    let lse = product(&[2, heads, rows]);
    let words = lse.saturating_add(SelectionWords::new(&shape, &lists).total() as u64);
    words.saturating_mul(WORD_BYTES as u64)
}

/// Reports of every layer of every chunk, kept until the prompt is done.
pub(super) fn reports(config: &ModelConfig, layers: usize, chunks: usize) -> u64 {
    product(&[layers, chunks, config.heads, REPORT_WORDS, WORD_BYTES])
}
