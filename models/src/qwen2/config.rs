//! From a Qwen2 configuration to a blueprint.
//!
//! The biases follow the configuration as the checkpoint crate read it: `transformers` has q, k
//! and v biased and o not, without a field that says so.

use sparse_accelerate_checkpoint::ModelConfig;

use crate::blueprint::Blueprint;

/// The blueprint of a Qwen2 model.
pub(crate) fn blueprint(config: &ModelConfig) -> Blueprint {
    Blueprint::sized(config)
}
