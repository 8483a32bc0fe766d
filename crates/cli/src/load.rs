//! Opening a model directory and a device, and loading one onto the other.
//!
//! Everything that can be refused without reading weights is refused first: the device, the prompt
//! length, the memory.

use anyhow::Result;
use sparse_accelerate_checkpoint::{ModelDir, WeightDtype};
use sparse_accelerate_engine::{
    MemoryPlan, Selected, check_length,
    device::{DeviceChoice, select},
    memory::Workload,
};
use sparse_accelerate_models::{CausalLm, LoadOptions};

use crate::{
    args::ModelArgs,
    exit::usage,
    progress::{Meter, Unit},
};

/// A model directory and the device it will run on.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) dir: ModelDir,
    pub(crate) selected: Selected,
    pub(crate) dtype: WeightDtype,
    pub(crate) chunk: usize,
    options: LoadOptions,
}

impl Opened {
    /// Opens both; reads no weights.
    pub(crate) fn new(args: &ModelArgs) -> Result<Self> {
        let choice: DeviceChoice = args.device.parse()?;
        if !args.model.is_dir() {
            return Err(usage(format!(
                "--model {}: no such directory; give a folder with config.json, tokenizer.json \
                 and *.safetensors (a GGUF file is converted with `sparse-accelerate import`)",
                args.model.display()
            )));
        }
        let dir = ModelDir::open(&args.model)?;
        let selected = select(choice)?;
        let chunk = args.chunk.unwrap_or_else(|| selected.default_chunk());
        if chunk == 0 {
            return Err(usage("--chunk is 0, but must be at least 1"));
        }
        let dtype = match args.dtype {
            Some(dtype) => dtype.into(),
            None => selected.default_dtype(dir.config().dtype),
        };
        let mut options = LoadOptions::new(selected.device.clone());
        options.dtype = Some(dtype);
        Ok(Self {
            dir,
            selected,
            dtype,
            chunk,
            options,
        })
    }

    /// Rows the MLP takes at a time.
    pub(crate) fn mlp_rows(&self) -> usize {
        self.options.mlp_rows
    }

    /// The device, the type and the chunk in one line.
    pub(crate) fn describe(&self) -> String {
        format!(
            "{} [{}, chunk {}]",
            self.selected.reason, self.dtype, self.chunk
        )
    }

    /// Refuses what does not fit the model or the device; says what it will take.
    pub(crate) fn check(&self, prompt: usize, max_tokens: usize) -> Result<MemoryPlan> {
        let config = self.dir.config();
        check_length(config, prompt, max_tokens)?;
        let workload = Workload {
            mlp_rows: self.mlp_rows(),
            gpu: !self.selected.is_flex(),
            ..Workload::new(self.dtype.size(), prompt + max_tokens, self.chunk)
        };
        let plan = MemoryPlan::new(config, &workload);
        let info = &self.selected.info;
        plan.check(info.memory, &info.choice.to_string())?;
        Ok(plan)
    }

    /// Loads the weights, with progress.
    pub(crate) fn load(&self) -> Result<CausalLm> {
        let mut meter = Meter::new("loading weights", Unit::Bytes);
        let mut bytes = 0;
        let model = CausalLm::load(&self.dir, &self.options, &mut |progress| {
            bytes = progress.bytes;
            meter.set(progress.bytes, progress.total_bytes);
        })
        .map_err(sparse_accelerate_engine::EngineError::from)?;
        meter.finish(bytes);
        Ok(model)
    }
}
