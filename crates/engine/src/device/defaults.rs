//! Defaults of a device: element type and chunk size.
//!
//! CPU: f32, since half types are converted on every use there. GPU: the stored type where the
//! device computes in it, else f16, else f32. bf16 to f16 can overflow; loading checks for that.

use sparse_accelerate_checkpoint::{ModelConfig, WeightDtype};

use super::select::Selected;

/// Prompt tokens of a chunk on the CPU: enough to fill its cores, small enough for its caches.
const CPU_CHUNK: usize = 2048;
/// Prompt tokens of a chunk on a GPU: enough work for a launch, small enough for its memory.
const GPU_CHUNK: usize = 8192;

impl Selected {
    /// Prompt tokens to compute at a time.
    pub fn default_chunk(&self) -> usize {
        if self.is_flex() { CPU_CHUNK } else { GPU_CHUNK }
    }

    /// The type to load a model in; bf16, or else f32, in place of an f16 that its activations outgrow.
    pub fn dtype_for(&self, config: &ModelConfig) -> WeightDtype {
        let outgrown =
            |dtype: &WeightDtype| *dtype == WeightDtype::F16 && config.architecture.outgrows_f16();
        let wider = [config.dtype, WeightDtype::Bf16].map(|stored| self.default_dtype(stored));
        let mut fits = wider.into_iter().filter(|dtype| !outgrown(dtype));
        fits.next().unwrap_or(WeightDtype::F32)
    }

    /// The type for what is stored as `stored`.
    pub fn default_dtype(&self, stored: WeightDtype) -> WeightDtype {
        let Some(can) = self.info.capabilities.as_ref().filter(|_| !self.is_flex()) else {
            return WeightDtype::F32;
        };
        match stored {
            WeightDtype::Bf16 if can.bf16 => WeightDtype::Bf16,
            WeightDtype::F16 | WeightDtype::Bf16 if can.f16 => WeightDtype::F16,
            _ => WeightDtype::F32,
        }
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::device::{Backend, Capabilities, DeviceChoice, select};

    fn config(class: &str) -> ModelConfig {
        let text = format!(
            r#"{{"architectures": ["{class}"], "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2,
                "num_hidden_layers": 1, "vocab_size": 16, "max_position_embeddings": 64, "head_dim": 32}}"#
        );
        ModelConfig::from_json(&text).expect("sound")
    }

    #[test]
    fn the_type_follows_what_the_device_computes_in() {
        let mut device = select(DeviceChoice::FLEX).expect("flex");
        assert_eq!(device.default_dtype(WeightDtype::Bf16), WeightDtype::F32);
        assert_eq!(device.default_chunk(), CPU_CHUNK);
        device.choice = DeviceChoice::Named {
            backend: Backend::Wgpu,
            index: 0,
        };
        assert_eq!(device.default_chunk(), GPU_CHUNK);
        for (f16, bf16, stored, expected) in [
            (true, true, WeightDtype::Bf16, WeightDtype::Bf16),
            (true, false, WeightDtype::Bf16, WeightDtype::F16),
            (false, false, WeightDtype::F16, WeightDtype::F32),
            (true, true, WeightDtype::F32, WeightDtype::F32),
            (true, true, WeightDtype::F16, WeightDtype::F16),
        ] {
            device.info.capabilities = Some(Capabilities {
                f16,
                bf16,
                plane_ops: true,
                plane_size: (32, 32),
                matrix_units: Vec::new(),
                max_shared_memory: None,
                max_units_per_cube: None,
                max_binding: None,
            });
            assert_eq!(device.default_dtype(stored), expected);
            for class in ["LlamaForCausalLM", "Gemma3ForCausalLM"] {
                let config = ModelConfig {
                    dtype: stored,
                    ..config(class)
                };
                let outgrown = class.starts_with("Gemma") && expected == WeightDtype::F16;
                let expected = match (outgrown, bf16) {
                    (true, true) => WeightDtype::Bf16,
                    (true, false) => WeightDtype::F32,
                    (false, _) => expected,
                };
                assert_eq!(device.dtype_for(&config), expected, "{class}");
            }
        }
    }
}
