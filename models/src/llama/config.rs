//! From a Llama configuration to a blueprint.
//!
//! The surprise: `attention_bias` of the original configuration means q, k, v *and* o; the
//! checkpoint crate has already split it into `qkv_bias` and `output_bias`.

use sparse_accelerate_checkpoint::ModelConfig;

use crate::blueprint::Blueprint;

/// The blueprint of a Llama model.
pub(crate) fn blueprint(config: &ModelConfig) -> Blueprint {
    Blueprint::sized(config)
}
