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

impl StageMemory {
    /// The plan of a part of a model.
    pub fn new(config: &ModelConfig, part: &StagePart, load: &Workload) -> Self {
        let cache = CacheShape {
            layers: part.layers.len(),
            batch: 1,
            kv_heads: config.kv_heads,
            capacity: load.capacity,
            head_dim: config.head_dim,
        };
        Self {
            layers: part.layers.clone(),
            weights: Weights::new(config, part, load.footprint.element),
            cache: cache.bytes_as(load.footprint.kv, load.footprint.element),
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
