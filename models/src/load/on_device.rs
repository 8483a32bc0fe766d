//! Random weights made where they will lie.
//!
//! The distribution of [`super::random`], drawn by the backend's own generator, one parameter at a time
//! and in the model's type: nothing passes through the host, and no second copy exists. The values
//! depend on seed, backend and type; use [`super::random`] where unlike devices are to hold the same. The
//! generator is seeded for every parameter by its number, so the stages of a model hold what the whole
//! would.

use std::sync::{Mutex, PoisonError};

use burn::tensor::{DType, Device, Distribution, Tensor};

use super::random;
use crate::error::ModelError;

/// A backend has one seed for all its devices: nobody may change it between seeding and drawing.
static SEED: Mutex<()> = Mutex::new(());

/// Draws parameters on a device.
#[derive(Debug)]
pub(crate) struct OnDevice {
    device: Device,
    seed: u64,
    parameter: u64,
}

impl OnDevice {
    pub(crate) fn new(seed: u64, device: &Device) -> Self {
        Self {
            device: device.clone(),
            seed,
            parameter: 0,
        }
    }

    /// Passes over `parameters` that another stage draws.
    pub(crate) fn skip(&mut self, parameters: u64) {
        self.parameter += parameters;
    }

    /// The next parameter, of `shape`; `name` is that of its first part.
    ///
    /// # Errors
    /// A device that cannot draw it.
    pub(crate) fn draw<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
        dtype: DType,
    ) -> Result<Tensor<D>, ModelError> {
        let (center, deviation) = random::distribution(name, &shape);
        // Uniform of that deviation.
        let half = f64::from(deviation) * 3f64.sqrt();
        let center = f64::from(center);
        let uniform = Distribution::Uniform(center - half, center + half);
        let seeded = SEED.lock().unwrap_or_else(PoisonError::into_inner);
        self.device
            .seed(random::mix(self.seed ^ random::mix(self.parameter)));
        let tensor = Tensor::random(shape, uniform, (&self.device, dtype));
        // Drawing is queued, and reads the seed when it runs.
        let done = self.device.sync();
        drop(seeded);
        done.map_err(|error| ModelError::Draw {
            tensor: name.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(tensor)
    }
}
