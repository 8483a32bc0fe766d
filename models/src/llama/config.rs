//! From a Llama configuration to a blueprint.
//!
//! The surprise: `attention_bias` of the original configuration means q, k, v *and* o; the
//! checkpoint crate has already split it into `qkv_bias` and `output_bias`.

use sparse_accelerate_checkpoint::ModelConfig;

use super::{frequencies::frequencies, keys::KEYS};
use crate::blueprint::{Biases, Blueprint};

/// The blueprint of a Llama model.
pub(crate) fn blueprint(config: &ModelConfig) -> Blueprint {
    let biases = Biases {
        qkv: config.qkv_bias,
        output: config.output_bias,
        mlp: config.mlp_bias,
    };
    Blueprint::sized(config, biases, frequencies(config), KEYS)
}
