//! One tensor from its GGUF blocks to the target type, row by row.
//!
//! Only a row is ever in memory. Rows of Q and K are taken in the order that undoes the interleaving of rotary pairs, and where a family
//! stores the gains of norms less one, the one that converters add is taken off again. A value
//! that is not finite, or does not fit the target type, ends the import: it would spoil every output of the model.

use std::io::Write;

use half::{bf16, f16};

use crate::gguf::dequant::dequantize;
use crate::gguf::kind::Kind;
use crate::gguf::table::TensorInfo;
use crate::{GgufError, WeightDtype};

/// A tensor to convert.
pub(super) struct Conversion<'a> {
    pub(super) tensor: &'a TensorInfo,
    pub(super) bytes: &'a [u8],
    pub(super) kind: Kind,
    /// Heads whose rows are interleaved, if any.
    pub(super) heads: Option<usize>,
    /// Subtracted from every element.
    pub(super) offset: f32,
    pub(super) dtype: WeightDtype,
}

/// Reason for which a conversion stopped.
pub(super) enum Stop {
    Format(GgufError),
    Write(std::io::Error),
}

impl Conversion<'_> {
    /// Writes the tensor's elements, row-major and little endian.
    pub(super) fn write(&self, out: &mut dyn Write) -> Result<(), Stop> {
        let shape = self.tensor.shape();
        let elements: usize = shape.iter().product();
        // A bias of an interleaved projection is reordered element by element.
        let columns = match (&shape[..], self.heads) {
            ([_], Some(_)) => 1,
            _ => shape.last().copied().unwrap_or(1),
        };
        let kind = self.kind;
        if columns % kind.block_elements() != 0 {
            return Err(Stop::Format(GgufError::TensorDims {
                name: self.tensor.name.clone(),
                got: self.tensor.dims.clone(),
                rule: "the elements of an interleaved bias are plain floats",
            }));
        }
        let row_bytes = columns / kind.block_elements() * kind.block_bytes();
        let rows = elements / columns;
        let mut values = vec![0.0; columns];
        let mut encoded = Vec::with_capacity(columns * self.dtype.size());
        for row in 0..rows {
            let source = self.source_row(row, rows);
            let blocks = self.bytes.get(source * row_bytes..).unwrap_or_default();
            dequantize(kind, blocks, &mut values);
            for value in &mut values {
                *value -= self.offset;
            }
            encoded.clear();
            if !encode(self.dtype, &values, &mut encoded) {
                return Err(Stop::Format(self.non_finite(&values)));
            }
            out.write_all(&encoded).map_err(Stop::Write)?;
        }
        Ok(())
    }

    /// The file's row that becomes `row`. A head's rows lie as pairs (0, half), (1, half + 1), ... in the file.
    fn source_row(&self, row: usize, rows: usize) -> usize {
        let Some(heads) = self.heads else { return row };
        let head_rows = rows / heads;
        let (head, within) = (row / head_rows, row % head_rows);
        let half = head_rows / 2;
        head * head_rows + within % half * 2 + within / half
    }

    fn non_finite(&self, values: &[f32]) -> GgufError {
        let hint = if values.iter().all(|value| value.is_finite()) {
            "it is too large for the type, import as f32 or bf16"
        } else {
            "the file is damaged, fetch it again"
        };
        GgufError::NonFinite {
            name: self.tensor.name.clone(),
            dtype: self.dtype.name(),
            hint,
        }
    }
}

/// Appends the values, rounded to nearest even. Returns whether all are finite in the target type.
fn encode(dtype: WeightDtype, values: &[f32], out: &mut Vec<u8>) -> bool {
    let mut finite = true;
    for &value in values {
        match dtype {
            WeightDtype::F32 => {
                finite &= value.is_finite();
                out.extend_from_slice(&value.to_le_bytes());
            }
            WeightDtype::F16 => {
                let rounded = f16::from_f32(value);
                finite &= rounded.is_finite();
                out.extend_from_slice(&rounded.to_le_bytes());
            }
            WeightDtype::Bf16 => {
                let rounded = bf16::from_f32(value);
                finite &= rounded.is_finite();
                out.extend_from_slice(&rounded.to_le_bytes());
            }
        }
    }
    finite
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_to_nearest_even() {
        let bits = |dtype, x: f32| {
            let mut out = Vec::new();
            assert!(encode(dtype, &[x], &mut out));
            u16::from_le_bytes([out[0], out[1]])
        };
        // Halfway between two bf16 neighbours: 1 + 2^-8 goes down to the even 1, 1 + 3 * 2^-8 up to the even 1 + 2^-6.
        assert_eq!(bits(WeightDtype::Bf16, 1.0 + 1.0 / 256.0), 0x3f80);
        assert_eq!(bits(WeightDtype::Bf16, 1.0 + 3.0 / 256.0), 0x3f82);
        assert_eq!(bits(WeightDtype::F16, 1.0 + 1.0 / 2048.0), 0x3c00);
        assert_eq!(bits(WeightDtype::F16, 1.0 + 3.0 / 2048.0), 0x3c02);
    }

    #[test]
    fn overflow_of_the_target_type_is_seen() {
        let mut out = Vec::new();
        assert!(!encode(WeightDtype::F16, &[70_000.0], &mut out));
        assert!(encode(WeightDtype::Bf16, &[70_000.0], &mut out));
        assert!(!encode(WeightDtype::F32, &[f32::NAN], &mut out));
    }
}
