//! Llama 2, 3, 3.1 and 3.2, and models of their layout (SmolLM2, TinyLlama).
//!
//! Over the shared decoder the family adds optional biases: `attention_bias` puts one on all four attention
//! projections, `mlp_bias` on all three of the MLP.

mod config;

pub(crate) use config::blueprint;
