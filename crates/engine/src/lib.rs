//! From a prompt to text: devices, memory, chunked prefill, sampling, stop strings, generation.
//!
//! [`device::select`] finds a device, [`memory::MemoryPlan`] gives the memory of a run before anything is
//! loaded, [`Sequence`] holds the KV cache of one sequence and runs prompts through a loaded model.
//! Nothing here prints, exits or panics on user input; every refusal is an [`EngineError`] with the value, the
//! limit and the way out.
// Without a backend there is no device to select.
#![cfg_attr(
    not(any(feature = "flex", feature = "cube")),
    allow(unreachable_code, unused_mut, unused_variables)
)]

pub mod attention;
pub mod calibration;
mod cancel;
mod chunking;
mod contain;
pub mod device;
mod devices;
mod error;
pub mod estimate;
mod generate;
pub mod gpus;
mod lengths;
mod loaded;
pub mod memory;
mod pipeline;
pub mod placement;
pub mod planner;
mod runner;
pub mod sampling;
mod sequence;
pub mod stop;
#[doc(hidden)]
pub mod testing;

pub use calibration::{Calibration, CalibrationError};
pub use cancel::Cancel;
pub use chunking::{Chunking, EqualTime};
pub use contain::contained;
pub use device::{DeviceChoice, DeviceError, Selected};
pub use devices::{Devices, ModelSource};
pub use error::EngineError;
pub use generate::{FinishReason, GenerateSettings, Generation, Timings, generate};
pub use lengths::{LengthsError, parse_lengths};
pub use loaded::Loaded;
pub use memory::{MeasuredMemory, MemoryPlan, MemoryReport};
pub use pipeline::{Pipeline, PipelineOptions, Transport};
pub use runner::{Divergence, States};
pub use sampling::{Sampler, SamplingError, SamplingSettings};
pub use sequence::{ChunkSelection, Prefill, PrefillProgress, Scored, Sequence, check_length};
pub use stop::{StopError, StopScanner};
