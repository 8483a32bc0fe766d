//! config.json: what a model is, checked once and then trusted.
//!
//! [`ModelConfig::from_json`] refuses whatever it cannot honour: a key that changes the model's mathematics is an error, never
//! dropped. Keys that do not (dropout, initializer, library versions) are ignored.

mod dtype;
mod family;
mod fields;
mod keys;
mod layer;
mod layers;
mod model;
mod parse;
mod rope;
mod scaling;
mod tensors;
mod unsupported;
mod window;

pub use dtype::WeightDtype;
pub use family::Architecture;
pub(crate) use family::WindowRule;
#[cfg(test)]
pub(crate) use fields::READ;
pub(crate) use fields::{Fields, describe};
pub(crate) use keys::{KEYS, SCALINGS};
pub use layer::{EMBEDDING, FINAL_NORM, HEAD, LAYERS, LayerPart, LayerWeight};
pub use model::{
    Activation, DynamicScaling, LayerAttention, LayerRotation, Llama3Scaling, LongRopeScaling,
    ModelConfig, RopeScaling, YarnScaling,
};
pub(crate) use parse::MAX_LAYERS;
pub(crate) use unsupported::refused;
