//! A tensor on its way to the device: one host buffer of the device's type.
//!
//! Parts of a stacked weight are written one after another. A part of the same type is copied as
//! bytes (safetensors are little-endian, and so is every host Burn runs on); another type goes
//! through f32, once.

use burn::tensor::TensorData;
use half::{bf16, f16, slice::HalfFloatSliceExt, vec::HalfBitsVecExt};
use sparse_accelerate_checkpoint::WeightDtype;

/// Values of one device tensor, filled from the front.
#[derive(Debug)]
pub(crate) struct HostTensor {
    values: Values,
    filled: usize,
}

#[derive(Debug)]
enum Values {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl HostTensor {
    /// A buffer of `len` values.
    pub(crate) fn new(dtype: WeightDtype, len: usize) -> Self {
        // Zeroed by the allocator (for `u16` too): a page is touched only when it is written.
        let values = match dtype {
            WeightDtype::F32 => Values::F32(vec![0.0; len]),
            WeightDtype::F16 => Values::F16(vec![0u16; len].reinterpret_into()),
            WeightDtype::Bf16 => Values::Bf16(vec![0u16; len].reinterpret_into()),
        };
        Self { values, filled: 0 }
    }

    /// The type of the buffer.
    pub(crate) fn dtype(&self) -> WeightDtype {
        match self.values {
            Values::F32(_) => WeightDtype::F32,
            Values::F16(_) => WeightDtype::F16,
            Values::Bf16(_) => WeightDtype::Bf16,
        }
    }

    /// Appends little-endian bytes of the buffer's own type.
    pub(crate) fn push_bytes(&mut self, bytes: &[u8]) {
        let (buffer, size): (&mut [u8], usize) = match &mut self.values {
            Values::F32(values) => (bytemuck::cast_slice_mut(values), 4),
            Values::F16(values) => (bytemuck::cast_slice_mut(values), 2),
            Values::Bf16(values) => (bytemuck::cast_slice_mut(values), 2),
        };
        let start = self.filled * size;
        buffer[start..start + bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len() / size;
    }

    /// Appends values, rounded to the buffer's type.
    pub(crate) fn push_f32(&mut self, source: &[f32]) {
        let range = self.filled..self.filled + source.len();
        match &mut self.values {
            Values::F32(values) => values[range].copy_from_slice(source),
            Values::F16(values) => values[range].convert_from_f32_slice(source),
            Values::Bf16(values) => values[range].convert_from_f32_slice(source),
        }
        self.filled += source.len();
    }

    /// Adds one to the `count` values appended last, if they are f32, which the gains of norms are.
    pub(crate) fn add_one_to_last(&mut self, count: usize) {
        if let Values::F32(values) = &mut self.values {
            for value in &mut values[self.filled - count..self.filled] {
                *value += 1.0;
            }
        }
    }

    /// Brings the elements of each of the first `heads` heads into an order: for each element of a head the place it has so far. An
    /// element is `width` values.
    pub(crate) fn reorder(&mut self, heads: usize, order: &[usize], width: usize) {
        match &mut self.values {
            Values::F32(values) => reorder(values, heads, order, width),
            Values::F16(values) => reorder(values, heads, order, width),
            Values::Bf16(values) => reorder(values, heads, order, width),
        }
    }

    /// The buffer as tensor data of `shape`.
    pub(crate) fn into_data<const D: usize>(self, shape: [usize; D]) -> TensorData {
        match self.values {
            Values::F32(values) => TensorData::new(values, shape),
            Values::F16(values) => TensorData::new(values, shape),
            Values::Bf16(values) => TensorData::new(values, shape),
        }
    }
}

fn reorder<T: Copy>(values: &mut [T], heads: usize, order: &[usize], width: usize) {
    for head in values.chunks_exact_mut(order.len() * width).take(heads) {
        let before = head.to_vec();
        for (to, &from) in head.chunks_exact_mut(width).zip(order) {
            to.copy_from_slice(&before[from * width..(from + 1) * width]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_reordered_and_what_follows_them_is_not() {
        for dtype in [WeightDtype::F32, WeightDtype::F16, WeightDtype::Bf16] {
            let mut tensor = HostTensor::new(dtype, 14);
            tensor.push_f32(&[0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13.]);
            tensor.reorder(2, &[2, 0, 1], 2);
            let got = tensor.into_data([7, 2]).convert::<f32>();
            let expected = [4., 5., 0., 1., 2., 3., 10., 11., 6., 7., 8., 9., 12., 13.];
            assert_eq!(got.try_to_vec::<f32>().expect("floats"), expected);
        }
    }
}
