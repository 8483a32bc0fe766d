//! What a run will need, from the model's configuration alone.
//!
//! Per chunk of `C` tokens, `e` bytes an element: residual, normed and f32 scratch `C * hidden`;
//! queries, keys, values before and after rotation, and the attention output; one MLP piece of
//! gate, up and product; and one row of logits in the model's type and in f32. Layers run one
//! after another, so the chunk is counted once.

use std::fmt;

use serde::Serialize;
use sparse_accelerate_checkpoint::ModelConfig;

use super::Bytes;
use crate::error::EngineError;

/// The sizes a plan is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// Bytes of the weights on the device.
    pub weights: u64,
    /// Bytes of one element of activations and cache.
    pub element: usize,
    /// Tokens the KV cache holds.
    pub capacity: usize,
    /// Tokens of one prefill chunk.
    pub chunk: usize,
    /// Tokens the MLP handles at a time.
    pub mlp_rows: usize,
}

/// Planned bytes on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MemoryPlan {
    /// Weights.
    pub weights: u64,
    /// KV cache at full capacity.
    pub cache: u64,
    /// Activations of one chunk, MLP piece and logits.
    pub workspace: u64,
    /// All of them.
    pub total: u64,
}

impl MemoryPlan {
    /// The plan of a workload.
    pub fn new(config: &ModelConfig, load: &Workload) -> Self {
        let product = |factors: &[usize]| {
            factors
                .iter()
                .fold(1u64, |acc, n| acc.saturating_mul(*n as u64))
        };
        let e = load.element;
        let chunk = load.chunk.min(load.capacity);
        let head = config.head_dim;
        let hidden = product(&[chunk, config.hidden_size, 3 * e + 2 * 4]);
        let projections = 3 * config.heads + 4 * config.kv_heads;
        let attention = product(&[chunk, head, projections, e]);
        let mlp = product(&[chunk.min(load.mlp_rows), config.intermediate_size, 3 * e]);
        let logits = product(&[config.vocab_size, e + 4]);
        let cache = product(&[2, config.layers, config.kv_heads, head, load.capacity, e]);
        let workspace = [hidden, attention, mlp, logits]
            .iter()
            .fold(0u64, |acc, n| acc.saturating_add(*n));
        Self {
            weights: load.weights,
            cache,
            workspace,
            total: load.weights.saturating_add(cache).saturating_add(workspace),
        }
    }

    /// Refuses a plan that is larger than what the device has. A device that does not tell
    /// (`available` is `None`) is not refused.
    ///
    /// # Errors
    /// [`EngineError::Memory`] with the plan in parts.
    pub fn check(&self, available: Option<u64>, device: &str) -> Result<(), EngineError> {
        match available {
            Some(available) if self.total > available => Err(EngineError::Memory {
                plan: *self,
                available,
                device: device.to_string(),
            }),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (weights {}, KV cache {}, workspace {})",
            Bytes(self.total),
            Bytes(self.weights),
            Bytes(self.cache),
            Bytes(self.workspace)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(total: u64) -> MemoryPlan {
        MemoryPlan {
            weights: total / 2,
            cache: total / 4,
            workspace: total / 4,
            total,
        }
    }

    #[test]
    fn too_much_is_refused_with_its_parts() {
        assert!(plan(8 << 30).check(Some(8 << 30), "cuda:0").is_ok());
        assert!(plan(8 << 30).check(None, "wgpu:0").is_ok());
        let error = plan(8 << 30)
            .check(Some(6 << 30), "cuda:0")
            .expect_err("too much");
        let text = error.to_string();
        for part in [
            "8.00 GiB",
            "weights 4.00 GiB",
            "KV cache 2.00 GiB",
            "cuda:0 has 6.00 GiB",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
