//! The devices of a run: one, or one for every stage of a pipeline.

use std::time::Duration;

use sparse_accelerate_checkpoint::{ModelConfig, ModelDir, WeightDtype};
use sparse_accelerate_models::{CausalLm, LoadOptions, ModelOptions, Placement};

use crate::{
    device::{DeviceChoice, Selected, select},
    error::EngineError,
    estimate::ATTENTION_RATE,
    loaded::Loaded,
    memory::{Footprint, MemoryPlan, Workload},
    pipeline::{Pipeline, PipelineOptions, Transport},
    placement::{LayerCosts, Split, StageDevice, place},
};

/// Devices of a run in the order of the layers, and options of placing a model on them.
#[derive(Debug, Clone)]
pub struct Devices {
    /// At least one.
    all: Vec<Selected>,
    /// Rule by which layers are shared out.
    pub split: Split,
    /// Bytes to plan for on every device, where it has more.
    pub memory_limit: Option<u64>,
    /// Options of the model; [`Devices::load`] is given the type of the weights.
    pub model: ModelOptions,
    /// Route of hidden states between stages.
    pub transport: Transport,
    /// Chunks of equal time to cut a prompt into; `None` goes by its length.
    pub chunks: Option<usize>,
    /// Time without a sign of life from any stage after which a run ends with an error.
    pub stall: Duration,
}

/// Source of a model's weights.
#[derive(Debug, Clone, Copy)]
pub enum ModelSource<'a> {
    /// A model directory.
    Checkpoint(&'a ModelDir),
    /// Random weights of a configuration, drawn on the devices.
    Random {
        /// The configuration.
        config: &'a ModelConfig,
        /// Its seed.
        seed: u64,
    },
}

impl Devices {
    /// Opens devices; one device may stand several times.
    ///
    /// # Errors
    /// [`EngineError::Device`] of the first that cannot be opened; [`EngineError::Split`] for an empty list.
    pub fn open(choices: &[DeviceChoice]) -> Result<Self, EngineError> {
        let all = choices.iter().map(|choice| select(*choice));
        let all = all.collect::<Result<Vec<_>, _>>()?;
        if all.is_empty() {
            return Err(crate::placement::SplitError::NoDevices.into());
        }
        Ok(Self {
            all,
            split: Split::Auto,
            memory_limit: None,
            model: ModelOptions::default(),
            transport: Transport::Peer,
            chunks: None,
            stall: PipelineOptions::STALL,
        })
    }

    /// The device of the first stage.
    pub fn first(&self) -> &Selected {
        &self.all[0]
    }

    /// True where the model is cut into stages.
    pub fn is_staged(&self) -> bool {
        self.all.len() > 1
    }

    /// True where all of them are the native CPU backend.
    pub fn is_flex(&self) -> bool {
        self.all.iter().all(Selected::is_flex)
    }

    /// Their names, joined by commas.
    pub fn names(&self) -> String {
        let names: Vec<_> = self.all.iter().map(|one| one.choice.to_string()).collect();
        names.join(",")
    }

    /// Reasons for these devices, in one line.
    pub fn reason(&self) -> String {
        let reasons: Vec<_> = self.all.iter().map(|one| one.reason.as_str()).collect();
        reasons.join("; ")
    }

    /// Default length of a chunk, tokens: that of the device that takes the fewest.
    pub fn default_chunk(&self) -> usize {
        let chunks = self.all.iter().map(Selected::default_chunk);
        chunks.min().unwrap_or(1)
    }

    /// The type to load a model in. All devices must compute in one type: the one they agree on, else f32.
    pub fn dtype_for(&self, config: &ModelConfig) -> WeightDtype {
        let first = self.first().dtype_for(config);
        let agree = |one: &Selected| one.dtype_for(config) == first;
        match self.all.iter().all(agree) {
            true => first,
            false => WeightDtype::F32,
        }
    }

    /// The properties that memory follows from of a model loaded in type `dtype`.
    pub fn footprint(&self, dtype: WeightDtype) -> Footprint {
        Footprint::new(dtype.size(), &self.model, !self.is_flex())
    }

    fn options(&self, dtype: WeightDtype) -> ModelOptions {
        ModelOptions {
            dtype: Some(dtype),
            ..self.model
        }
    }

    /// Cuts the model. Devices that are unlike are first measured by a short product.
    ///
    /// # Errors
    /// [`EngineError::Split`] where a stage does not fit its device, and devices that fail.
    pub fn place(
        &self,
        config: &ModelConfig,
        dtype: WeightDtype,
        load: &Workload,
    ) -> Result<Placement, EngineError> {
        if !self.is_staged() {
            return Ok(Placement::whole(config.layers));
        }
        let alike = self.alike();
        let costs = LayerCosts::new(config, load.capacity, 1.0, 1.0 / ATTENTION_RATE);
        let mut stages = Vec::new();
        for one in &self.all {
            let speed = match (&self.split, alike) {
                (Split::Auto, false) => one.speed(dtype, config.hidden_size)?,
                _ => 1.0,
            };
            // Stages on one device share its memory.
            let sharing = self.all.iter().filter(|other| other.choice == one.choice);
            let sharing = sharing.count() as u64;
            stages.push(StageDevice {
                name: one.choice.to_string(),
                memory: self.memory(one).map(|memory| memory / sharing),
                speed,
                costs,
            });
        }
        Ok(place(config, load, &stages, &self.split)?)
    }

    /// Bytes to plan for on a device; `None` where nothing tells.
    fn memory(&self, one: &Selected) -> Option<u64> {
        let limits = [one.info.memory, self.memory_limit];
        limits.into_iter().flatten().min()
    }

    fn alike(&self) -> bool {
        let first = &self.first().info;
        let same = |one: &Selected| {
            (&one.info.name, &one.info.backend, one.info.kind)
                == (&first.name, &first.backend, first.kind)
        };
        self.all.iter().all(same)
    }

    /// Cuts the model and plans the memory of a workload; refuses one that does not fit.
    ///
    /// # Errors
    /// [`EngineError::Memory`] on one device, as [`Devices::place`] on several.
    pub fn plan(
        &self,
        config: &ModelConfig,
        dtype: WeightDtype,
        load: &Workload,
    ) -> Result<(Placement, MemoryPlan), EngineError> {
        let placement = self.place(config, dtype, load)?;
        let plan = MemoryPlan::placed(config, &placement, load);
        if !self.is_staged() {
            let first = self.first();
            plan.check(self.memory(first), &first.choice.to_string())?;
        }
        Ok((placement, plan))
    }

    /// Loads a model as it was cut. `progress` is told bytes loaded and bytes in all.
    ///
    /// # Errors
    /// As [`CausalLm::load`] and [`Pipeline::load`].
    pub fn load(
        &self,
        source: ModelSource<'_>,
        placement: &Placement,
        dtype: WeightDtype,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Loaded, EngineError> {
        if !self.is_staged() {
            return Ok(Loaded::Whole(self.load_whole(source, dtype, progress)?));
        }
        let devices = self.all.iter().map(|one| one.device.clone()).collect();
        let options = PipelineOptions {
            model: self.options(dtype),
            transport: self.transport,
            chunks: self.chunks,
            stall: self.stall,
            ..PipelineOptions::new(devices, placement.clone())
        };
        Ok(Loaded::Staged(match source {
            ModelSource::Checkpoint(dir) => Pipeline::load(dir, &options, progress)?,
            ModelSource::Random { config, seed } => {
                Pipeline::random(config, seed, true, &options, progress)?
            }
        }))
    }

    /// Loads a whole model onto the first device.
    fn load_whole(
        &self,
        source: ModelSource<'_>,
        dtype: WeightDtype,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<CausalLm, EngineError> {
        let mut options = LoadOptions::new(self.first().device.clone());
        options.model = self.options(dtype);
        let mut on_progress = |p: sparse_accelerate_models::LoadProgress<'_>| {
            progress(p.bytes, p.total_bytes);
        };
        let model = crate::contained("load", || {
            Ok::<_, EngineError>(match source {
                ModelSource::Checkpoint(dir) => CausalLm::load(dir, &options, &mut on_progress)?,
                ModelSource::Random { config, seed } => {
                    CausalLm::random_on_device(config, seed, &options, &mut on_progress)?
                }
            })
        })?;
        Ok(model)
    }
}
