//! Speed of a device, by a short measured product.

use std::time::Instant;

use burn::tensor::{DType, Device, Distribution, Tensor};
use sparse_accelerate_checkpoint::WeightDtype;
use sparse_accelerate_layers::linear;
use sparse_accelerate_models::ModelError;

use crate::{device::Selected, error::EngineError};

/// Rows of the product on a device with pools, and on the CPU.
const ROWS: [usize; 2] = [4096, 64];
/// Products before the clock runs, and timed ones.
const RUNS: [usize; 2] = [2, 5];

/// Measures the FLOP/s of `x Wᵀ` with `W` `[width, width]`, by the route of the model's layers: the median of
/// five runs after two that compile and tune. For comparing unlike devices; longer products are faster.
///
/// # Errors
/// A type the device does not compute in, a device that fails.
pub fn measure_speed(device: &Device, dtype: DType, width: usize) -> Result<f64, EngineError> {
    let failed = |reason: String| EngineError::execution("measure speed", reason);
    if !device.supports_dtype(dtype) {
        return Err(failed(format!("{device:?} does not compute in {dtype:?}")));
    }
    let rows = ROWS[usize::from(device.memory_pool_report().is_none())];
    let draw = |rows| {
        let ones = Distribution::Uniform(-1.0, 1.0);
        Tensor::<2>::random([rows, width], ones, (device, dtype))
    };
    let (x, weight) = (draw(rows), draw(width));
    let run = || -> Result<f64, EngineError> {
        let start = Instant::now();
        let y = linear(x.clone(), &weight).map_err(ModelError::from)?;
        device.sync().map_err(|error| failed(error.to_string()))?;
        let seconds = start.elapsed().as_secs_f64();
        drop(y);
        Ok(seconds)
    };
    for _ in 0..RUNS[0] {
        run()?;
    }
    let mut seconds = Vec::with_capacity(RUNS[1]);
    for _ in 0..RUNS[1] {
        seconds.push(run()?);
    }
    seconds.sort_by(f64::total_cmp);
    let flops = 2.0 * (rows * width * width) as f64;
    Ok(flops / seconds[RUNS[1] / 2].max(f64::MIN_POSITIVE))
}

impl Selected {
    /// [`measure_speed`] of this device.
    ///
    /// # Errors
    /// As [`measure_speed`].
    pub fn speed(&self, dtype: WeightDtype, width: usize) -> Result<f64, EngineError> {
        let dtype = match dtype {
            WeightDtype::F32 => DType::F32,
            WeightDtype::F16 => DType::F16,
            WeightDtype::Bf16 => DType::BF16,
        };
        measure_speed(&self.device, dtype, width)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_has_a_speed() {
        let speed = measure_speed(&Device::flex(), DType::F32, 256).expect("speed");
        assert!((1e6..1e14).contains(&speed), "{speed}");
    }
}
