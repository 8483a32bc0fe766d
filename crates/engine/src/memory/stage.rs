//! The memory of one stage.

use std::ops::Range;

use serde::Serialize;
use sparse_accelerate::CacheShape;
use sparse_accelerate_checkpoint::ModelConfig;
use sparse_accelerate_models::StagePart;

use super::{Weights, Workload, Workspace, sum};

/// Memory of a GPU's runtime beside CubeCL's pools: a CUDA context (0.3 to 0.5 GiB, more on GPUs with more
/// multiprocessors), loaded kernels and cuBLASLt's own. Not in what [`super::measure`] sees.
pub const RUNTIME: u64 = 512 << 20;

/// Planned bytes on one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StageMemory {
    /// Hidden layers, counted from the model's first.
    pub layers: Range<usize>,
    /// Weights.
    pub weights: Weights,
    /// KV cache at full capacity; of bytes, with the elements of one layer.
    pub cache: u64,
    /// The largest moment of a chunk.
    pub workspace: Workspace,
    /// [`RUNTIME`] on a GPU.
    pub runtime: u64,
}

/// Bytes of the cache of a part of a model: layers with a window keep what it shows.
fn cache(config: &ModelConfig, part: &StagePart, load: &Workload) -> u64 {
    let layers = &config.attention[part.layers.clone()];
    let windows = config.windows().into_iter().map(Some);
    let alike = windows.chain([None]).map(|window| {
        let shape = CacheShape {
            layers: layers.iter().filter(|layer| layer.window == window).count(),
            batch: 1,
            kv_heads: config.kv_heads,
            capacity: load.capacity,
            head_dim: config.head_dim,
        };
        match shape.layers {
            0 => 0,
            _ => shape
                .within(window)
                .bytes_as(load.footprint.kv, load.footprint.element),
        }
    });
    sum(&alike.collect::<Vec<_>>())
}

impl StageMemory {
    /// The plan of a part of a model.
    pub fn new(config: &ModelConfig, part: &StagePart, load: &Workload) -> Self {
        Self {
            layers: part.layers.clone(),
            weights: Weights::new(config, part, load.footprint.element),
            cache: cache(config, part, load),
            workspace: Workspace::new(config, part, load),
            runtime: if load.footprint.gpu { RUNTIME } else { 0 },
        }
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        let (weights, workspace) = (self.weights.total(), self.workspace.total());
        sum(&[weights, self.cache, workspace, self.runtime])
    }
}
