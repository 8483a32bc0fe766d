//! Memory layout of a matrix in the library's terms.

use burn_cubecl::tensor::CubeTensor;

use super::plan::ALIGNED;

/// A matrix whose rows, or columns, are contiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Operand {
    /// Columns are contiguous, not rows.
    pub(super) transposed: bool,
    /// Elements from one row (transposed: column) to the next.
    pub(super) stride: usize,
    /// Bytes its address is a multiple of, at most [`ALIGNED`].
    pub(super) alignment: u32,
}

impl Operand {
    /// The tensor as it lies; `None` where neither rows nor columns are contiguous and apart.
    pub(super) fn of(tensor: &CubeTensor) -> Option<Self> {
        let (shape, strides) = (tensor.meta.shape(), tensor.meta.strides());
        let offset = tensor.handle.offset_start.unwrap_or(0);
        Self::new([shape[0], shape[1]], [strides[0], strides[1]], offset)
    }

    fn new(shape: [usize; 2], strides: [usize; 2], offset: u64) -> Option<Self> {
        let [rows, columns] = shape;
        // A dimension of one element has no stride to speak of.
        let apart = |inner: usize, outer: usize| {
            let contiguous = shape[inner] == 1 || strides[inner] == 1;
            let stride = if shape[outer] == 1 {
                shape[inner]
            } else {
                strides[outer]
            };
            (contiguous && stride >= shape[inner]).then_some(stride)
        };
        let (transposed, stride) = match (apart(1, 0), apart(0, 1)) {
            (Some(stride), _) => (false, stride),
            (None, Some(stride)) => (true, stride),
            (None, None) => return None,
        };
        debug_assert!(stride >= if transposed { rows } else { columns });
        Some(Self {
            transposed,
            stride,
            alignment: alignment(offset),
        })
    }
}

/// Allocations are aligned to more than the library can use, so the offset decides.
fn alignment(offset: u64) -> u32 {
    let exponent = offset.trailing_zeros().min(ALIGNED.trailing_zeros());
    1 << exponent
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lies(shape: [usize; 2], strides: [usize; 2]) -> Option<(bool, usize)> {
        Operand::new(shape, strides, 0).map(|o| (o.transposed, o.stride))
    }

    #[test]
    fn rows_and_columns() {
        assert_eq!(lies([3, 5], [5, 1]), Some((false, 5)));
        assert_eq!(lies([3, 5], [8, 1]), Some((false, 8)));
        assert_eq!(lies([3, 5], [1, 3]), Some((true, 3)));
        assert_eq!(lies([3, 5], [1, 7]), Some((true, 7)));
    }

    #[test]
    fn neither() {
        assert_eq!(lies([3, 5], [10, 2]), None);
        // Broadcast rows lie on top of each other.
        assert_eq!(lies([3, 5], [0, 1]), None);
    }

    #[test]
    fn single_rows_and_columns() {
        assert_eq!(lies([1, 5], [0, 1]), Some((false, 5)));
        assert_eq!(lies([3, 1], [4, 9]), Some((false, 4)));
        assert_eq!(lies([1, 5], [1, 4]), Some((true, 4)));
        assert_eq!(lies([1, 1], [0, 0]), Some((false, 1)));
    }

    #[test]
    fn alignments() {
        assert_eq!(alignment(0), 256);
        assert_eq!(alignment(4096), 256);
        assert_eq!(alignment(48), 16);
        assert_eq!(alignment(6), 2);
    }
}
