//! Every way in which reading or importing a checkpoint fails.
//!
//! [`CheckpointError`] is what the crate's functions return; the enums beside it hold the faults of one file format each and
//! know no path, which the outer error adds. Messages state what failed, the value got, the limit, and the way out.

mod checkpoint;
mod config;
mod gguf;
mod safetensors;
mod text;

pub use checkpoint::CheckpointError;
pub use config::ConfigError;
pub use gguf::GgufError;
pub use safetensors::{IndexError, SafeTensorsError};
pub use text::TextError;
