//! Llama 2, 3, 3.1 and 3.2, and models of their layout (SmolLM2, TinyLlama).
//!
//! Over the shared decoder the family adds the Llama-3 scaling of rotary frequencies and optional
//! biases: `attention_bias` puts one on all four attention projections, `mlp_bias` on all three of
//! the MLP. Position interpolation other than Llama-3's is refused when the configuration is read.

mod config;
mod frequencies;

pub(crate) use config::blueprint;
