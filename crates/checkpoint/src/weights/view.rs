//! A tensor's bytes where they lie in the mapped file.
//!
//! Elements are little endian and need not be aligned: safetensors files are only as aligned as their header is padded.

use std::fmt;

use half::{bf16, f16};

use crate::WeightDtype;

/// One tensor of a checkpoint, borrowed from the map.
pub struct WeightView<'a> {
    /// Element type.
    pub dtype: WeightDtype,
    /// Slowest dimension first; `[out, in]` for matrices.
    pub shape: Vec<usize>,
    /// The elements, row-major and little endian; `product(shape) * dtype.size()` bytes.
    pub bytes: &'a [u8],
}

impl WeightView<'_> {
    /// All elements as f32, row-major. Exact for each of the three types.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        match self.dtype {
            WeightDtype::F32 => self.words::<4>().map(f32::from_le_bytes).collect(),
            WeightDtype::F16 => self
                .words::<2>()
                .map(|word| f16::from_le_bytes(word).to_f32())
                .collect(),
            WeightDtype::Bf16 => self
                .words::<2>()
                .map(|word| bf16::from_le_bytes(word).to_f32())
                .collect(),
        }
    }

    /// Returns true if any element is a NaN or an infinity. One such weight spoils every output of the model.
    #[must_use]
    pub fn has_non_finite(&self) -> bool {
        match self.dtype {
            WeightDtype::F32 => self
                .words::<4>()
                .any(|word| !f32::from_le_bytes(word).is_finite()),
            WeightDtype::F16 => self
                .words::<2>()
                .any(|word| !f16::from_le_bytes(word).is_finite()),
            WeightDtype::Bf16 => self
                .words::<2>()
                .any(|word| !bf16::from_le_bytes(word).is_finite()),
        }
    }

    fn words<const N: usize>(&self) -> impl Iterator<Item = [u8; N]> {
        self.bytes.as_chunks::<N>().0.iter().copied()
    }
}

impl fmt::Debug for WeightView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeightView")
            .field("dtype", &self.dtype)
            .field("shape", &self.shape)
            .field("bytes", &self.bytes.len())
            .finish()
    }
}
