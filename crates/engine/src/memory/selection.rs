//! Memory of a selection: held by every layer, and taken by one layer's choice while it runs.
//!
//! The lengths are those that the kernels allocate.

use sparse_accelerate::{IntervalSlash, select::BLOCK};
use sparse_accelerate_checkpoint::ModelConfig;
use sparse_accelerate_contract::{
    ListLayout, REPORT_WORDS, Shape, Visible,
    group::{self, GroupWords, MEAN_BLOCK},
    scratch::{POOLED_VECTORS, SelectionWords, WORD_BYTES},
};

use super::{Choosing, Workload, product};

/// Bytes that one layer keeps of its keys from the first chunk on: where blocks are chosen by their mass, mean keys in the
/// cache's type; else mean key, variance and mean value of every block, `[Hk, blocks, 3, d]` in f32.
pub(super) fn pooled(config: &ModelConfig, load: &Workload) -> u64 {
    let (blocks, bytes) = match load.choosing {
        Choosing::Nobody => return 0,
        Choosing::KvBlocks | Choosing::HeadBlocks => {
            (load.capacity.div_ceil(MEAN_BLOCK), load.footprint.element)
        }
        Choosing::Heads => (load.capacity.div_ceil(BLOCK), POOLED_VECTORS * WORD_BYTES),
    };
    product(&[config.kv_heads, blocks, config.head_dim, bytes])
}

/// Tables of one layer's choice for a chunk of `rows`, all alive at once; freed with the layer but for the report.
pub(super) fn tables(config: &ModelConfig, load: &Workload, rows: usize) -> u64 {
    let shape = shape(config, load, rows);
    let words = match load.choosing {
        Choosing::Nobody => return 0,
        Choosing::KvBlocks | Choosing::HeadBlocks => GroupWords::new(&shape).total() as u64,
        Choosing::Heads => {
            let limits = IntervalSlash::default();
            let lists = ListLayout {
                columns: limits.columns,
                slashes: limits.slashes,
            };
            // Two launches share the rows' log-sum-exp, the correction keeps a second one.
            let lse = product(&[2, config.heads, rows]);
            lse.saturating_add(SelectionWords::new(&shape, &lists).total() as u64)
        }
    };
    words.saturating_mul(WORD_BYTES as u64)
}

/// The report of one layer and chunk, kept until the prompt is done.
pub(super) fn report(config: &ModelConfig, load: &Workload, rows: usize) -> u64 {
    match load.choosing {
        Choosing::Nobody => 0,
        Choosing::KvBlocks | Choosing::HeadBlocks => {
            let shape = shape(config, load, rows);
            product(&[shape.index_heads, group::report_words(&shape), WORD_BYTES])
        }
        Choosing::Heads => product(&[config.heads, REPORT_WORDS, WORD_BYTES]),
    }
}

fn shape(config: &ModelConfig, load: &Workload, rows: usize) -> Shape {
    Shape {
        batch: 1,
        heads: config.heads,
        kv_heads: config.kv_heads,
        index_heads: match load.choosing {
            Choosing::KvBlocks => config.kv_heads,
            _ => config.heads,
        },
        rows,
        keys: load.capacity,
        head_dim: config.head_dim,
        scale: 1.0,
        // A window hides keys and takes no less room.
        visible: Visible::Causal,
    }
}
