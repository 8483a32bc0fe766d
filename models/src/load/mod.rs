//! From tensors in files (or from a seed) to a model on a device.
//!
//! One host copy of one device tensor at a time: a stacked weight (query, key and value; gate and
//! up) is gathered into one buffer, cast there if its type differs, and handed to the device. The
//! checkpoint itself is only mapped. Which tensors exist, and that none is left over, is the
//! checkpoint crate's to check.

mod assemble;
mod host;
mod on_device;
mod options;
mod random;
mod source;

use sparse_accelerate_checkpoint::{EMBEDDING, FINAL_NORM, HEAD, LAYERS, ModelConfig, Weights};

use crate::{blueprint::Blueprint, error::ModelError, model::CausalLm, placement::StagePart};

use assemble::{Assembler, TensorSource};
pub use options::{LoadOptions, LoadProgress, MLP_ROWS, ModelOptions};
pub(crate) use options::{dtype_of, refuse_unsupported};

/// Assembles a model from a checkpoint.
pub(crate) fn from_weights(
    config: &ModelConfig,
    mut weights: Weights,
    options: &LoadOptions,
    progress: &mut dyn FnMut(LoadProgress<'_>),
) -> Result<CausalLm, ModelError> {
    let dtype = refuse_unsupported(config, options)?;
    let blueprint = Blueprint::new(config)?;
    let part = blueprint.part(options.part.as_ref())?;
    leave_to_others(&mut weights, &blueprint, &part);
    let mut source = source::Checkpoint {
        weights: &mut weights,
        check_finite: options.model.check_finite,
        gains_less_one: config.gains_less_one,
    };
    let tensors = TensorSource::Host(&mut source);
    let model = Assembler::new(tensors, &blueprint, dtype, options, progress)?.model(config)?;
    weights.finish()?;
    tracing::debug!(bytes = model.weight_bytes(), ?dtype, "weights loaded");
    Ok(model)
}

/// Counts as used what a stage does not read: other stages account for it.
fn leave_to_others(weights: &mut Weights, blueprint: &Blueprint, part: &StagePart) {
    let elsewhere = |layer: usize| layer < blueprint.layers && !part.layers.contains(&layer);
    let others: Vec<String> = weights
        .names()
        .filter(|name| {
            let layer = name
                .strip_prefix(LAYERS)
                .and_then(|rest| rest.strip_prefix('.')?.split('.').next()?.parse().ok());
            layer.is_some_and(elsewhere)
                || (*name == EMBEDDING && !blueprint.has_table(part))
                || (*name == FINAL_NORM && !part.output)
                // Some exporters write the head although it is tied.
                || (*name == HEAD && (!part.output || blueprint.tied_embeddings))
        })
        .map(str::to_owned)
        .collect();
    for name in &others {
        weights.ignore(name);
    }
}

/// Assembles a model from a seed.
pub(crate) fn random(
    config: &ModelConfig,
    seed: u64,
    options: &LoadOptions,
) -> Result<CausalLm, ModelError> {
    let dtype = refuse_unsupported(config, options)?;
    let blueprint = Blueprint::new(config)?;
    let mut source = random::Random::new(seed);
    let tensors = TensorSource::Host(&mut source);
    Assembler::new(tensors, &blueprint, dtype, options, &mut |_| {})?.model(config)
}

/// Assembles a model of random weights drawn on the device itself.
pub(crate) fn random_on_device(
    config: &ModelConfig,
    seed: u64,
    options: &LoadOptions,
    progress: &mut dyn FnMut(LoadProgress<'_>),
) -> Result<CausalLm, ModelError> {
    let dtype = refuse_unsupported(config, options)?;
    let blueprint = Blueprint::new(config)?;
    let tensors = TensorSource::Device(on_device::OnDevice::new(seed, &options.device));
    Assembler::new(tensors, &blueprint, dtype, options, progress)?.model(config)
}
