//! The largest moment of one prefill chunk on a stage.
//!
//! Layers run one after another, so a chunk is counted once. Of `C` rows, widths `h` (hidden), `q`, `kv`,
//! `f` (intermediate), elements of the weights' type, these are alive together:
//!
//!   attention   x + norm + qkv         C (2 h + q + 2 kv)
//!               x + qkv + its parts, heads normalised, + their concatenation
//!                                      C (h + 3 q + 6 kv), where heads are normalised
//!               x + qkv + query        C (h + 2 q + 2 kv)
//!               x + query + context    C (h + 2 q), and the tables of a selection
//!               both of the last two with the keys and values of a window and the chunk, where a layer has no room for them
//!               x + context + output   C (2 h + q)
//!   MLP         pieces of R rows: x, what earlier pieces gave, and gate, up and their product
//!                                      C h + (C - R) h + R max(h + 2 f, 3 f)
//!               x + pieces + their concatenation    3 C h

use serde::Serialize;
use sparse_accelerate::{CacheShape, KvCache};
use sparse_accelerate_checkpoint::{ModelConfig, RopeScaling};
use sparse_accelerate_models::{StagePart, chooses};

use super::{Workload, product, selection, sum};

/// Scratch of one matrix product of cuBLASLt (`crates/linear`, NVIDIA's advice for Hopper).
const PRODUCT_SCRATCH: u64 = 32 << 20;
/// Rows of the rotation table are made this many at a time.
const ROTATION_GRAIN: usize = 1024;
/// Chunks of hidden states between two stages: on either side of a link one waits and one is being moved
/// (`crate::pipeline`). The one that a stage works on is among its activations.
const IN_TRANSIT: usize = 2;

/// Bytes beside weights and cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Workspace {
    /// Activations of the widest moment of a layer, tables of a selection included.
    pub activations: u64,
    /// Scratch of matrix products.
    pub products: u64,
    /// Cosines and sines by position, f32: a table for each rotation that layers have, one more where frequencies follow a sequence's
    /// length, so that those of the last two lengths are kept.
    pub rotation: u64,
    /// Pooled keys of every layer, and reports.
    pub selection: u64,
    /// The logits' row.
    pub logits: u64,
    /// Hidden states on their way between stages.
    #[serde(rename = "carries")]
    pub in_transit: u64,
    /// Unused rest of the pools' pages; see [`Workspace::new`].
    pub pages: u64,
}

impl Workspace {
    /// The workspace of a part of a model.
    ///
    /// `pages` is the memory that CubeCL's pools may hold beyond living tensors, on a GPU only: room for one more
    /// of the widest temporary, and the rotation table's upload. An upper bound: plans are within 5 % of the peaks of
    /// one and two H200 (`benches/runs/2026-11-26-h200-two-devices`).
    pub fn new(config: &ModelConfig, part: &StagePart, load: &Workload) -> Self {
        let e = load.footprint.element;
        let rows = load.chunk.min(load.capacity);
        let positions = load.capacity.min(config.max_positions);
        let positions = positions.next_multiple_of(ROTATION_GRAIN);
        let scaling = config.rope_scaling.as_ref();
        let mut rotations: Vec<_> = config.attention.iter().map(|l| l.rotation).collect();
        rotations.sort();
        rotations.dedup();
        let followed = scaling.is_some_and(RopeScaling::follows_length);
        let tables = rotations.len() + usize::from(followed);
        let rotation = product(&[positions, config.head_dim, size_of::<f32>()]);
        let attention = &config.attention;
        let here = attention[part.layers.clone()].iter();
        let choosing = here.filter(|layer| chooses(attention, **layer));
        // A layer that lets go of keys pools them anew.
        let (layers, bounded) = choosing.fold((0, 0), |(all, bounded), layer| {
            let mut window = layer.window.into_iter();
            let lets_go = window.any(|keys| KvCache::lets_go(keys, load.capacity));
            (all + 1, bounded + usize::from(lets_go))
        });
        let chunks = load.capacity.div_ceil(rows.max(1));
        let pooled = selection::pooled(config, load).saturating_mul((layers - bounded) as u64);
        let reports = selection::report(config, load, rows);
        let selection = pooled.saturating_add(reports.saturating_mul((layers * chunks) as u64));
        let in_transit = IN_TRANSIT * (usize::from(!part.input) + usize::from(!part.output));
        Self {
            activations: activations(config, load, rows),
            products: if load.footprint.gpu {
                PRODUCT_SCRATCH
            } else {
                0
            },
            rotation: rotation.saturating_mul(tables as u64),
            selection,
            logits: match part.output {
                true => product(&[config.vocab_size, e]),
                false => 0,
            },
            in_transit: product(&[in_transit, rows, config.hidden_size, e]),
            pages: match load.footprint.gpu {
                true => sum(&[widest(config, load, rows), rotation]),
                false => 0,
            },
        }
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        sum(&[
            self.activations,
            self.products,
            self.rotation,
            self.selection,
            self.logits,
            self.in_transit,
            self.pages,
        ])
    }
}

fn widths(config: &ModelConfig) -> [usize; 4] {
    let d = config.head_dim;
    [
        config.hidden_size,
        config.heads * d,
        config.kv_heads * d,
        config.intermediate_size,
    ]
}

fn activations(config: &ModelConfig, load: &Workload, rows: usize) -> u64 {
    let [h, q, kv, f] = widths(config);
    let piece = rows.min(load.footprint.mlp_rows.max(1));
    let elements = |rows: usize, width: usize| product(&[rows, width, load.footprint.element]);
    let tables = selection::tables(config, load, rows);
    let spill = spill(config, load, rows);
    let normed = match config.head_norms {
        true => h + 3 * q + 6 * kv,
        false => 0,
    };
    let attention = [
        elements(rows, 2 * h + q + 2 * kv),
        elements(rows, normed),
        elements(rows, h + 2 * q + 2 * kv).saturating_add(spill),
        sum(&[elements(rows, h + 2 * q), tables, spill]),
        elements(rows, 2 * h + q),
    ];
    let mlp = [
        sum(&[
            elements(2 * rows - piece, h),
            elements(piece, (h + 2 * f).max(3 * f)),
        ]),
        elements(rows, 3 * h),
    ];
    attention.into_iter().chain(mlp).max().unwrap_or(0)
}

/// Keys and values of the widest window and a chunk of `rows` tokens, where a layer with that window has no room for them; of int8 the
/// elements too.
fn spill(config: &ModelConfig, load: &Workload, rows: usize) -> u64 {
    let cache = cache(config, load);
    let windows = config.windows().into_iter();
    let beside = windows.filter_map(|window| cache.beside(Some(window), rows));
    let bytes = beside.map(|shape| shape.bytes_as(load.footprint.kv, load.footprint.element));
    bytes.max().unwrap_or(0)
}

/// The cache of one layer without a window.
fn cache(config: &ModelConfig, load: &Workload) -> CacheShape {
    CacheShape {
        layers: 1,
        batch: 1,
        kv_heads: config.kv_heads,
        capacity: load.capacity,
        head_dim: config.head_dim,
    }
}

/// The widest temporary of a layer.
fn widest(config: &ModelConfig, load: &Workload, rows: usize) -> u64 {
    let [_, q, kv, f] = widths(config);
    let piece = rows.min(load.footprint.mlp_rows.max(1));
    product(&[rows, q + 2 * kv, load.footprint.element]).max(product(&[
        piece,
        2 * f,
        load.footprint.element,
    ]))
}
