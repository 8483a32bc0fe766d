//! Opening a model directory and devices, and loading one onto the others.
//!
//! Everything that can be refused without reading weights is refused first: the devices, the prompt
//! length, the memory.

use std::path::Path;

use anyhow::Result;
use sparse_accelerate::{AttentionSettings, KvType};
use sparse_accelerate_checkpoint::{ModelConfig, ModelDir, WeightDtype};
use sparse_accelerate_engine::{Devices, Loaded, MemoryPlan, ModelSource, check_length};
use sparse_accelerate_models::Placement;

use crate::{
    args::{ModelArgs, RunOnArgs},
    exit::usage,
    progress::{Meter, Unit},
};

/// Devices that a model runs on, element type and chunk.
#[derive(Debug)]
pub(crate) struct RunTarget {
    pub(crate) devices: Devices,
    pub(crate) dtype: WeightDtype,
    pub(crate) chunk: usize,
}

impl RunTarget {
    /// Opens the devices and fills in what was not asked for, as the model needs it.
    pub(crate) fn new(args: &RunOnArgs, config: &ModelConfig) -> Result<Self> {
        let devices = args.open()?;
        let dtype = args.sizes.dtype();
        Ok(Self {
            dtype: dtype.unwrap_or_else(|| devices.dtype_for(config)),
            chunk: args.sizes.chunk(devices.default_chunk())?,
            devices,
        })
    }

    /// The devices, the type and the chunk in one line.
    pub(crate) fn describe(&self) -> String {
        let reason = self.devices.reason();
        let kv = match self.devices.model.kv {
            KvType::Model => String::new(),
            other => format!(", {} KV cache", other.name()),
        };
        format!("{reason} [{}{kv}, chunk {}]", self.dtype, self.chunk)
    }

    /// Refuses what does not fit the model or the devices; says how it is cut and what it will take with any
    /// of some attentions.
    pub(crate) fn check(
        &self,
        config: &ModelConfig,
        prompt: usize,
        max_tokens: usize,
        attentions: &[&AttentionSettings],
    ) -> Result<(Placement, MemoryPlan)> {
        check_length(config, prompt, max_tokens)?;
        let footprint = self.devices.footprint(self.dtype);
        let load = footprint.workload(prompt + max_tokens, self.chunk, attentions);
        Ok(self.devices.plan(config, self.dtype, &load)?)
    }

    /// Loads weights as they were cut, with progress.
    pub(crate) fn load(&self, source: ModelSource<'_>, placement: &Placement) -> Result<Loaded> {
        let what = match source {
            ModelSource::Checkpoint(_) => "loading weights",
            ModelSource::Random { .. } => "drawing random weights",
        };
        let (mut meter, mut bytes) = (Meter::new(what, Unit::Bytes), 0);
        let model = self
            .devices
            .load(source, placement, self.dtype, &mut |done, total| {
                bytes = done;
                meter.set(done, total);
            })?;
        meter.finish(bytes);
        Ok(model)
    }
}

/// A model directory and the devices it will run on.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) dir: ModelDir,
    pub(crate) target: RunTarget,
}

impl Opened {
    /// Opens both; reads no weights.
    pub(crate) fn new(args: &ModelArgs) -> Result<Self> {
        Self::at(&args.model, &args.run)
    }

    /// [`Opened::new`] for a directory.
    pub(crate) fn at(model: &Path, run: &RunOnArgs) -> Result<Self> {
        if !model.is_dir() {
            return Err(usage(format!(
                "--model {}: no such directory; give a folder with config.json, tokenizer.json \
                 and *.safetensors (a GGUF file is converted with `sparse-accelerate import`)",
                model.display()
            )));
        }
        let dir = ModelDir::open(model)?;
        for note in dir.notes() {
            eprintln!("note: {note}");
        }
        let target = RunTarget::new(run, dir.config())?;
        Ok(Self { dir, target })
    }

    /// As [`Opened::new`] for a command that looks into layers, which needs them on one device.
    pub(crate) fn on_one_device(args: &ModelArgs) -> Result<Self> {
        let opened = Self::new(args)?;
        if opened.target.devices.is_staged() {
            return Err(usage(format!(
                "--devices {}: this command runs on one device; give --device, or use run, bench ttft, bench \
                 decode, eval needle or eval ruler",
                opened.target.devices.names()
            )));
        }
        Ok(opened)
    }

    /// [`RunTarget::describe`].
    pub(crate) fn describe(&self) -> String {
        self.target.describe()
    }

    /// [`RunTarget::check`] for this model.
    pub(crate) fn check(
        &self,
        prompt: usize,
        max_tokens: usize,
        attentions: &[&AttentionSettings],
    ) -> Result<(Placement, MemoryPlan)> {
        self.target
            .check(self.dir.config(), prompt, max_tokens, attentions)
    }

    /// Loads the weights as they were cut, with progress.
    pub(crate) fn load(&self, placement: &Placement) -> Result<Loaded> {
        self.target
            .load(ModelSource::Checkpoint(&self.dir), placement)
    }
}
