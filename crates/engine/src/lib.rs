//! From a prompt to text: devices, memory, chunked prefill, sampling, stop strings, generation.
//!
//! [`device::select`] finds a device, [`memory::MemoryPlan`] says what a run will need before
//! anything is loaded, [`Session`] holds the KV cache of one loaded model and runs prompts through
//! it. Nothing here prints, exits or panics on user input; every refusal is an [`EngineError`] with
//! the value, the limit and the way out.

pub mod attention;
pub mod calibration;
mod cancel;
pub mod cards;
mod chunking;
mod contain;
pub mod device;
mod devices;
mod error;
pub mod estimate;
mod generate;
mod lengths;
mod loaded;
pub mod memory;
mod pipeline;
pub mod placement;
pub mod planner;
pub mod sampling;
mod score;
mod selection;
mod sequence;
mod session;
pub mod stop;

pub use calibration::{Calibration, CalibrationError};
pub use cancel::Cancel;
pub use chunking::{Chunking, EqualTime};
pub use contain::contained;
pub use device::{DeviceChoice, DeviceError, Selected};
pub use devices::{Devices, ModelSource};
pub use error::EngineError;
pub use generate::{FinishReason, GenerateSettings, Generation, MemoryReport, Timings, generate};
pub use lengths::{LengthsError, parse_lengths};
pub use loaded::Loaded;
pub use memory::{MeasuredMemory, MemoryPlan};
pub use pipeline::{Fault, Pipeline, PipelineOptions, PipelineSession, Transport};
pub use sampling::{Sampler, SamplingError, SamplingSettings};
pub use score::Scored;
pub use selection::ChunkSelection;
pub use sequence::{Prefill, PrefillProgress, Sequence, check_length};
pub use session::Session;
pub use stop::{StopError, StopScanner};
