//! Random weights made where they will lie.
//!
//! The distribution of [`super::random`], drawn by the backend's own generator, one parameter at a time
//! and in the model's type: nothing passes through the host, and no second copy exists. The values
//! depend on seed, backend and type; use [`super::random`] where two devices are to hold the same.

use burn::tensor::{DType, Device, Distribution, Tensor};

use super::random;

/// Draws parameters on a device.
#[derive(Debug)]
pub(crate) struct OnDevice {
    device: Device,
}

impl OnDevice {
    /// Seeds the device's generator.
    pub(crate) fn new(seed: u64, device: &Device) -> Self {
        device.seed(seed);
        Self {
            device: device.clone(),
        }
    }

    /// A parameter of `shape`; `name` is that of its first part.
    pub(crate) fn draw<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
        dtype: DType,
    ) -> Tensor<D> {
        let (center, deviation) = random::distribution(name, &shape);
        // Uniform of that deviation.
        let half = f64::from(deviation) * 3f64.sqrt();
        let center = f64::from(center);
        let uniform = Distribution::Uniform(center - half, center + half);
        Tensor::random(shape, uniform, (&self.device, dtype))
    }
}
