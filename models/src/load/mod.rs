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

use sparse_accelerate_checkpoint::{ModelConfig, Weights};

use crate::{blueprint::Blueprint, error::ModelError, model::CausalLm};

use assemble::{Assembler, Supply};
pub use options::{LoadOptions, LoadProgress};
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
    if blueprint.tied_embeddings {
        // Some exporters write the head although it is tied.
        weights.ignore(blueprint.keys.head);
    }
    let mut source = source::Checkpoint {
        weights: &mut weights,
        check_finite: options.check_finite,
    };
    let supply = Supply::Host(&mut source);
    let model = Assembler::new(supply, &blueprint, dtype, options, progress).model(config)?;
    weights.finish()?;
    tracing::debug!(bytes = model.weight_bytes(), ?dtype, "weights loaded");
    Ok(model)
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
    let supply = Supply::Host(&mut source);
    Assembler::new(supply, &blueprint, dtype, options, &mut |_| {}).model(config)
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
    let supply = Supply::Device(on_device::OnDevice::new(seed, &options.device));
    Assembler::new(supply, &blueprint, dtype, options, progress).model(config)
}
