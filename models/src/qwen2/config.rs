//! From a Qwen2 configuration to a blueprint.
//!
//! The biases follow the configuration as the checkpoint crate read it: `transformers` has q, k
//! and v biased and o not, without a field that says so.

use sparse_accelerate_checkpoint::ModelConfig;

use super::keys::KEYS;
use crate::blueprint::{Biases, Blueprint, base_frequencies};

/// The blueprint of a Qwen2 model.
pub(crate) fn blueprint(config: &ModelConfig) -> Blueprint {
    let biases = Biases {
        qkv: config.qkv_bias,
        output: config.output_bias,
        mlp: config.mlp_bias,
    };
    let frequencies = base_frequencies(config.rope_theta, config.head_dim);
    Blueprint::sized(config, biases, frequencies, KEYS)
}
