//! Weights from a seed.
//!
//! Uniform values of a variance that keeps a pre-norm decoder near unit scale: `1 / in` for a
//! matrix `[out, in]`, 1 plus a little for the gains of norms, a little for biases. The generator
//! (SplitMix64) restarts for every tensor from the seed and the tensor's number, so the values do
//! not depend on the device or on the type they are rounded to.

use super::{host::HostTensor, source::WeightSource};
use crate::error::ModelError;

/// Values made at a time.
const BLOCK: usize = 1 << 16;

/// Standard deviation of gains around 1 and of biases around 0.
const VECTOR_DEVIATION: f32 = 0.1;

/// A source of random tensors.
#[derive(Debug)]
pub(crate) struct Random {
    seed: u64,
    tensor: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, tensor: 0 }
    }
}

impl WeightSource for Random {
    fn read(
        &mut self,
        name: &str,
        shape: &[usize],
        into: &mut HostTensor,
    ) -> Result<(), ModelError> {
        self.tensor += 1;
        let mut state = mix(self.seed ^ mix(self.tensor));
        let (center, deviation) = distribution(name, shape);
        let width = deviation * 12f32.sqrt();
        let total: usize = shape.iter().product();
        let mut block = Vec::with_capacity(BLOCK.min(total));
        let mut left = total;
        while left > 0 {
            let count = left.min(BLOCK);
            block.clear();
            block.extend((0..count).map(|_| {
                state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let unit = (mix(state) >> 40) as f32 / (1u32 << 24) as f32;
                center + width * (unit - 0.5)
            }));
            into.push_f32(&block);
            left -= count;
        }
        Ok(())
    }

    fn skip(&mut self, tensors: u64) {
        self.tensor += tensors;
    }
}

/// Mean and standard deviation of a tensor's values.
pub(crate) fn distribution(name: &str, shape: &[usize]) -> (f32, f32) {
    match shape {
        [_, fan_in] => (0.0, (*fan_in as f32).sqrt().recip()),
        _ if name.ends_with(".bias") => (0.0, VECTOR_DEVIATION),
        _ => (1.0, VECTOR_DEVIATION),
    }
}

/// The output function of SplitMix64.
pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}
