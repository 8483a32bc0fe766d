//! Hugging Face model directories, read with no tensor library: config, weights, tokenizer, chat template; and an importer
//! that turns a GGUF file into such a directory.
//!
//! [`ModelDir::open`] reads and checks every small file. [`ModelDir::weights`] maps the safetensors files and hands out each
//! tensor once, so a load that forgets or repeats a tensor is an error. [`import_gguf`] dequantises a GGUF file into a new
//! directory. [`inspect`] describes a directory or a single file, including models that cannot be loaded.
//!
//! Nothing here panics on a malformed file: each fault is a [`CheckpointError`] that says what failed, the value got, the limit
//! and the way out. Two mistakes people make: passing the path of a file where a directory is meant, and forgetting
//! [`Weights::ignore`] for `lm_head.weight` in a checkpoint that ties its embeddings and stores the table twice.

mod config;
mod error;
mod files;
mod generation;
mod gguf;
mod inspect;
mod json;
mod model_dir;
mod support;
mod text;
mod vocabulary;
mod weights;

pub use config::{
    Activation, Architecture, DynamicScaling, EMBEDDING, FINAL_NORM, HEAD, LAYERS, LayerAttention,
    LayerPart, LayerRotation, LayerWeight, Llama3Scaling, LongRopeScaling, ModelConfig,
    RopeScaling, WeightDtype, YarnScaling,
};
pub use error::{CheckpointError, ConfigError, GgufError, IndexError, SafeTensorsError, TextError};
pub use files::read_config;
pub use generation::GenerationConfig;
pub use gguf::{ImportOptions, ImportProgress, ImportSummary, import_gguf};
pub use inspect::{Inspection, InspectionKind, TensorEntry, inspect};
pub use model_dir::ModelDir;
pub use support::{FamilySupport, KeySupport, RefusedKey, SIZES, ScalingSupport, Support, support};
pub use text::{ChatDate, ChatMessage, ChatTemplate, SpecialTokens, TextStream, Tokenizer};
pub use weights::{WeightView, Weights};

/// The example in this crate's README is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
