//! Checks declared tensors against the data: in range, no overlap, no gap, sizes that follow from shape and dtype.
//!
//! The `safetensors` crate makes the same checks with errors that do not say which of them failed or by how much; it still has
//! the last word in `shard`.

use super::header::Declared;
use crate::SafeTensorsError;

/// Checks that the tensors tile `available` bytes of data exactly. Sorts them by offset.
pub(super) fn check(tensors: &mut [Declared], available: u64) -> Result<(), SafeTensorsError> {
    tensors.sort_by(|a, b| (a.begin, a.end, &a.name).cmp(&(b.begin, b.end, &b.name)));
    let mut covered = 0;
    let mut previous = "the header";
    for tensor in &*tensors {
        let name = || tensor.name.clone();
        let (begin, end) = (tensor.begin, tensor.end);
        if end < begin {
            return Err(SafeTensorsError::OffsetsReversed {
                name: name(),
                begin,
                end,
            });
        }
        if end > available {
            return Err(SafeTensorsError::OffsetsOutOfRange {
                name: name(),
                end,
                available,
            });
        }
        if begin < covered {
            let other = previous.to_owned();
            return Err(SafeTensorsError::Overlap {
                name: name(),
                begin,
                other,
                other_end: covered,
            });
        }
        if begin > covered {
            return Err(SafeTensorsError::Gap {
                name: name(),
                begin,
                expected: covered,
            });
        }
        let expected = size_in_bytes(tensor);
        if expected != Some(end - begin) {
            return Err(SafeTensorsError::Size {
                name: name(),
                shape: tensor.shape.clone(),
                dtype: tensor.dtype.to_string(),
                got: end - begin,
                expected,
            });
        }
        covered = end;
        previous = &tensor.name;
    }
    if covered < available {
        return Err(SafeTensorsError::TrailingBytes {
            got: available,
            expected: covered,
        });
    }
    Ok(())
}

fn size_in_bytes(tensor: &Declared) -> Option<u64> {
    let elements = tensor
        .shape
        .iter()
        .try_fold(1u64, |product, &dim| product.checked_mul(dim))?;
    let bits = elements.checked_mul(tensor.dtype.bitsize() as u64)?;
    (bits % 8 == 0).then_some(bits / 8)
}
