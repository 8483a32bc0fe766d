//! The model that is measured: a model directory, or a configuration with random weights.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};
use sparse_accelerate::KvType;
use sparse_accelerate_checkpoint::{ModelConfig, ModelDir, read_config};
use sparse_accelerate_engine::{Loaded, ModelSource};
use sparse_accelerate_eval::{speed::Case, text_hash};
use sparse_accelerate_models::Placement;
use sparse_accelerate_report::record::{ModelMetadata, WeightSource};

use crate::{
    args::RunOnArgs,
    exit::usage,
    load::{Opened, RunTarget},
    progress::{Meter, Unit},
    run_file::{checkpoint_metadata, name_of},
};

/// Which model, where and in which type.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model and device")]
pub(crate) struct SubjectArgs {
    /// Model directory in Hugging Face layout
    #[arg(long, short, value_name = "DIR", required_unless_present = "config")]
    model: Option<PathBuf>,

    /// Source of the weights; random ones need --config and no model directory
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

    #[command(flatten)]
    run: RunOnArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Weights {
    Checkpoint,
    Random,
}

/// A model that can be loaded, on a device that opened.
pub(super) struct Subject {
    /// Its description in run files.
    pub(super) metadata: ModelMetadata,
    pub(super) config: ModelConfig,
    pub(super) target: RunTarget,
    /// The directory; `None` with random weights.
    pub(super) dir: Option<ModelDir>,
    seed: u64,
}

impl Subject {
    /// Opens model and device; reads no weights but for the model's hash.
    pub(super) fn new(args: &SubjectArgs, seed: u64) -> Result<Self> {
        match (&args.model, &args.config) {
            (Some(model), None) => Self::checkpoint(args, model, seed),
            (None, Some(config)) if args.weights == Weights::Random => {
                Self::random(args, config.clone(), seed)
            }
            _ => Err(usage(
                "give either --model DIR, or --weights random --config FILE",
            )),
        }
    }

    fn checkpoint(args: &SubjectArgs, model: &Path, seed: u64) -> Result<Self> {
        let opened = Opened::at(model, &args.run)?;
        let mut meter = Meter::new("hashing the model", Unit::Bytes);
        let metadata = checkpoint_metadata(&opened.dir, &mut |done, total| meter.set(done, total))?;
        meter.clear();
        let config = opened.dir.config().clone();
        Ok(Self {
            metadata,
            config,
            target: opened.target,
            dir: Some(opened.dir),
            seed,
        })
    }

    fn random(args: &SubjectArgs, path: PathBuf, seed: u64) -> Result<Self> {
        let wrong =
            |error: &dyn std::fmt::Display| usage(format!("--config {}: {error}", path.display()));
        let text = read_config(&path).map_err(|error| wrong(&error))?;
        let config = ModelConfig::from_json(&text).map_err(|error| wrong(&error))?;
        let json = serde_json::from_str(&text).map_err(|error| wrong(&error))?;
        let target = RunTarget::new(&args.run, &config)?;
        let metadata = ModelMetadata {
            name: name_of(&path.with_extension("")),
            hash: None,
            weights: WeightSource::Random,
            parameters: config.parameter_count(),
            config: json,
        };
        Ok(Self {
            metadata,
            config,
            target,
            dir: None,
            seed,
        })
    }

    /// Settings that tell this model from others in a run file: random weights have no hash.
    pub(super) fn settings(&self) -> Map<String, Value> {
        let mut settings = Map::new();
        settings.insert("model".into(), json!(self.metadata.name));
        let config = text_hash(&self.metadata.config.to_string());
        settings.insert("config".into(), json!(config));
        let devices = &self.target.devices;
        if devices.model.kv != KvType::Model {
            settings.insert("kv_dtype".into(), json!(devices.model.kv));
        }
        if devices.is_staged() {
            settings.insert("devices".into(), json!(devices.names()));
            settings.insert("split".into(), json!(devices.split));
            settings.insert("chunks".into(), json!(devices.chunks));
            settings.insert("transport".into(), json!(devices.transport));
        }
        settings
    }

    /// How the model is cut; refuses a prompt that the model or the devices have no room for.
    pub(super) fn check(
        &self,
        prompt: usize,
        max_tokens: usize,
        cases: &[Case],
    ) -> Result<Placement> {
        let settings: Vec<_> = cases.iter().map(|case| &case.settings).collect();
        let checked = self
            .target
            .check(&self.config, prompt, max_tokens, &settings)?;
        Ok(checked.0)
    }

    /// The model as it is cut now: the one that is held, or another in its place.
    pub(super) fn cut<'m>(
        &self,
        held: &'m mut Option<(Loaded, Placement)>,
        placement: Placement,
    ) -> Result<&'m Loaded> {
        // One that is cut otherwise gives its memory back first.
        let fits = held.take().filter(|(_, cut)| *cut == placement);
        let model = match fits {
            Some(model) => model,
            None => (self.load(&placement)?, placement),
        };
        Ok(&held.insert(model).0)
    }

    /// Loads the checkpoint, or draws the weights.
    fn load(&self, placement: &Placement) -> Result<Loaded> {
        let source = match &self.dir {
            Some(dir) => ModelSource::Checkpoint(dir),
            None => ModelSource::Random {
                config: &self.config,
                seed: self.seed,
            },
        };
        self.target.load(source, placement)
    }
}
