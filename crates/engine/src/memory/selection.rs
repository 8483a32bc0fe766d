//! Memory of heads that choose their keys: held between chunks, and while one layer chooses.
//!
//! The shapes are those of the kernels: every query head chooses, columns and slashes up to the default
//! limits of Interval-Slash. All tables are words of 4 bytes.

use sparse_accelerate::{
    IntervalSlash,
    select::{
        BLOCK, PROBES, REPORT_WORDS,
        layout::{ListLayout, TableLayout},
        shape::Shape,
    },
};
use sparse_accelerate_checkpoint::ModelConfig;

use super::{product, sum};

/// Bytes of a word.
const WORD: usize = 4;
/// Positions of one segment of the columns' cut, and words of its bins (1,024 of columns, 264 of slashes).
const SEGMENT: usize = 2048;
const BINS: usize = 1024 + 264;

/// Mean key, variance and mean value of every key block of one layer, `[Hk, blocks, 3, d]` in f32; the cache
/// keeps them from the first chunk on.
pub(super) fn pooled(config: &ModelConfig, capacity: usize) -> u64 {
    let blocks = capacity.div_ceil(BLOCK);
    product(&[config.kv_heads, blocks, 3, config.head_dim, WORD])
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
    };
    let (blocks, key_blocks) = (shape.query_blocks(), shape.key_blocks());
    let buckets = shape.slash_buckets();
    // Two launches share the rows' log-sum-exp, the correction keeps a second one.
    let lse = product(&[2, heads, rows]);
    let probes = product(&[heads, PROBES + 2 * keys + 2 * buckets + 4]);
    let segments = keys.div_ceil(SEGMENT) * (BINS + 2);
    let cut = product(&[heads, keys + buckets + segments]);
    let kept = product(&[heads, lists.stride() + shape.tiles() + 1]);
    let shares = product(&[heads, blocks, key_blocks]);
    let masks = product(&[2, heads, blocks, shape.mask_words() + 1]);
    let table = TableLayout::new(&shape, &lists).words as u64;
    let words = sum(&[lse, probes, cut, kept, shares, masks, table]);
    words.saturating_mul(WORD as u64)
}

/// Reports of every layer of every chunk, kept until the prompt is done.
pub(super) fn reports(config: &ModelConfig, layers: usize, chunks: usize) -> u64 {
    product(&[layers, chunks, config.heads, REPORT_WORDS, WORD])
}
