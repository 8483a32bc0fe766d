//! What is measured: a model directory, or a configuration with random weights.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};
use sparse_accelerate_checkpoint::{ModelConfig, WeightDtype};
use sparse_accelerate_engine::{
    EngineError, MemoryPlan, Selected, check_length,
    device::{DeviceChoice, select},
    memory::Workload,
};
use sparse_accelerate_eval::text_hash;
use sparse_accelerate_models::{CausalLm, LoadOptions};
use sparse_accelerate_report::record::{ModelFacts, WeightSource};

use crate::{
    args::{Dtype, ModelArgs},
    exit::usage,
    load::Opened,
    progress::{Meter, Unit},
    run_file::{checkpoint_facts, name_of},
};

/// Which model, where and in which type.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model and device")]
pub(crate) struct SubjectArgs {
    /// Model directory in Hugging Face layout
    #[arg(long, short, value_name = "DIR", required_unless_present = "config")]
    model: Option<PathBuf>,

    /// Where weights come from; random ones need --config and no model directory
    #[arg(
        long,
        value_name = "SOURCE",
        default_value = "checkpoint",
        requires_if("random", "config")
    )]
    weights: Weights,

    /// A Hugging Face config.json for random weights; benches/shapes holds some
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    config: Option<PathBuf>,

    /// auto, flex, wgpu[:n], vulkan[:n], metal[:n] or cuda[:n]; `doctor` lists them
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: String,

    /// Type of weights, activations and cache [default: f32 on the CPU; on a GPU the stored type
    /// where it computes in it, else f16]
    #[arg(long, value_name = "TYPE")]
    dtype: Option<Dtype>,

    /// Prompt tokens computed at a time [default: 2048 on the CPU, 8192 on a GPU]
    #[arg(long, value_name = "N")]
    chunk: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Weights {
    Checkpoint,
    Random,
}

/// A model that can be loaded, on a device that opened.
pub(super) struct Subject {
    /// What run files say of it.
    pub(super) facts: ModelFacts,
    pub(super) config: ModelConfig,
    pub(super) selected: Selected,
    pub(super) dtype: WeightDtype,
    pub(super) chunk: usize,
    /// The directory; `None` with random weights.
    pub(super) opened: Option<Opened>,
    seed: u64,
}

impl Subject {
    /// Opens model and device; reads no weights but for the model's hash.
    pub(super) fn new(args: &SubjectArgs, seed: u64) -> Result<Self> {
        match (&args.model, &args.config) {
            (Some(model), None) => Self::checkpoint(args, model.clone(), seed),
            (None, Some(config)) if args.weights == Weights::Random => {
                Self::random(args, config.clone(), seed)
            }
            _ => Err(usage(
                "give either --model DIR, or --weights random --config FILE",
            )),
        }
    }

    fn checkpoint(args: &SubjectArgs, model: PathBuf, seed: u64) -> Result<Self> {
        let opened = Opened::new(&ModelArgs {
            model,
            device: args.device.clone(),
            dtype: args.dtype,
            chunk: args.chunk,
        })?;
        let mut meter = Meter::new("hashing the model", Unit::Bytes);
        let facts = checkpoint_facts(&opened.dir, &mut |done, total| meter.set(done, total))?;
        meter.clear();
        let config = opened.dir.config().clone();
        Ok(Self {
            facts,
            config,
            selected: opened.selected.clone(),
            dtype: opened.dtype,
            chunk: opened.chunk,
            opened: Some(opened),
            seed,
        })
    }

    fn random(args: &SubjectArgs, path: PathBuf, seed: u64) -> Result<Self> {
        let choice: DeviceChoice = args.device.parse()?;
        let text = fs::read_to_string(&path)
            .map_err(|error| usage(format!("--config {}: {error}", path.display())))?;
        let wrong =
            |error: &dyn std::fmt::Display| usage(format!("--config {}: {error}", path.display()));
        let config = ModelConfig::from_json(&text).map_err(|error| wrong(&error))?;
        let json = serde_json::from_str(&text).map_err(|error| wrong(&error))?;
        let selected = select(choice)?;
        let chunk = args.chunk.unwrap_or_else(|| selected.default_chunk());
        if chunk == 0 {
            return Err(usage("--chunk is 0, but must be at least 1"));
        }
        let dtype = match args.dtype {
            Some(dtype) => dtype.into(),
            None => selected.default_dtype(config.dtype),
        };
        let facts = ModelFacts {
            name: name_of(&path.with_extension("")),
            hash: None,
            weights: WeightSource::Random,
            parameters: config.parameter_count(),
            config: json,
        };
        Ok(Self {
            facts,
            config,
            selected,
            dtype,
            chunk,
            opened: None,
            seed,
        })
    }

    /// What tells this model from others in a run file: random weights have no hash.
    pub(super) fn settings(&self) -> Map<String, Value> {
        let mut settings = Map::new();
        settings.insert("model".into(), json!(self.facts.name));
        let config = text_hash(&self.facts.config.to_string());
        settings.insert("config".into(), json!(config));
        settings
    }

    /// Refuses a prompt that the model or the device has no room for.
    pub(super) fn check(&self, prompt: usize, max_tokens: usize) -> Result<(), EngineError> {
        check_length(&self.config, prompt, max_tokens)?;
        let workload = Workload {
            mlp_rows: self.options().mlp_rows,
            gpu: !self.selected.is_flex(),
            ..Workload::new(self.dtype.size(), prompt + max_tokens, self.chunk)
        };
        let info = &self.selected.info;
        MemoryPlan::new(&self.config, &workload).check(info.memory, &info.choice.to_string())
    }

    fn options(&self) -> LoadOptions {
        let mut options = LoadOptions::new(self.selected.device.clone());
        options.dtype = Some(self.dtype);
        options
    }

    /// Loads the checkpoint, or draws the weights.
    pub(super) fn load(&self) -> Result<CausalLm> {
        if let Some(opened) = &self.opened {
            return opened.load();
        }
        let mut meter = Meter::new("drawing random weights", Unit::Bytes);
        let mut bytes = 0;
        let model =
            CausalLm::random_on_device(&self.config, self.seed, &self.options(), &mut |p| {
                bytes = p.bytes;
                meter.set(p.bytes, p.total_bytes);
            })
            .map_err(EngineError::from)?;
        // Drawn when the device gets there; wait, so that the first prompt does not.
        self.selected.device.sync().context("random weights")?;
        meter.finish(bytes);
        Ok(model)
    }
}
