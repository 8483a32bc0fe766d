//! The other contestant: candle-transformers' Llama on the same folder, f32, on the CPU.

use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::llama::{Cache, Config, Llama, LlamaConfig};

pub(crate) struct Model {
    llama: Llama,
    config: Config,
}

impl Model {
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path.join("config.json"))
            .with_context(|| format!("reading the config of {}", path.display()))?;
        let config = serde_json::from_str::<LlamaConfig>(&text)?.into_config(false);
        let weights = [path.join("model.safetensors")];
        #[allow(unsafe_code)]
        // SAFETY: the file is not changed while it is mapped.
        let vars =
            unsafe { VarBuilder::from_mmaped_safetensors(&weights, DType::F32, &Device::Cpu)? };
        Ok(Self {
            llama: Llama::load(vars, &config)?,
            config,
        })
    }

    /// Logits after the last token.
    pub(crate) fn prefill(&self, ids: &[u32]) -> Result<Vec<f32>> {
        let mut cache = Cache::new(true, DType::F32, &self.config, &Device::Cpu)?;
        let input = Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?;
        Ok(self
            .llama
            .forward(&input, 0, &mut cache)?
            .squeeze(0)?
            .to_vec1()?)
    }
}
