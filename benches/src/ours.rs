//! Our contestant: a model on burn-flex, prefilled through the engine.

use std::path::Path;

use anyhow::{Result, ensure};
use burn::tensor::Device;
use sparse_accelerate::AttentionSettings;
use sparse_accelerate_checkpoint::ModelDir;
use sparse_accelerate_engine::{Prefill, Sequence};
use sparse_accelerate_models::{CausalLm, LoadOptions};

/// Prompt tokens per chunk, the engine's default on the CPU.
const CHUNK: usize = 2048;

pub(crate) struct Model {
    dir: ModelDir,
    model: CausalLm,
}

impl Model {
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let dir = ModelDir::open(path)?;
        let options = LoadOptions::new(Device::flex());
        let model = CausalLm::load(&dir, &options, &mut |_| ())?;
        Ok(Self { dir, model })
    }

    /// The first `tokens` tokens of the demo text, repeated where it is too short.
    pub(crate) fn prompt(&self, tokens: usize) -> Result<Vec<u32>> {
        let ids = self
            .dir
            .tokenizer()
            .encode(include_str!("../../demo/jargon.txt"), false)?;
        ensure!(!ids.is_empty(), "the demo text has no tokens");
        Ok(ids.into_iter().cycle().take(tokens).collect())
    }

    pub(crate) fn prefill(&self, ids: &[u32], settings: &AttentionSettings) -> Result<Prefill> {
        let mut sequence = Sequence::new(&self.model, ids.len())?;
        Ok(sequence.prefill(ids, CHUNK.into(), settings, &mut |_| ())?)
    }
}
