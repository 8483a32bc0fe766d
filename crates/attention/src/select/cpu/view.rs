//! Tensors of the stages as slices with strides.

use sparse_accelerate_cpu::FlexFloat;

/// A `[B, H, rows, d]` tensor whose last dimension is contiguous.
#[derive(Debug, Clone, Copy)]
pub struct View<'a, E> {
    /// From the tensor's first element on.
    pub data: &'a [E],
    /// Elements from one sequence, head and row to the next.
    pub strides: [usize; 3],
}

impl<'a, E: FlexFloat> View<'a, E> {
    /// Index of the first element of a row.
    pub fn at(&self, b: usize, head: usize, row: usize) -> usize {
        b * self.strides[0] + head * self.strides[1] + row * self.strides[2]
    }

    /// `len` elements of one row.
    pub fn row(&self, b: usize, head: usize, row: usize, len: usize) -> &'a [E] {
        &self.data[self.at(b, head, row)..][..len]
    }

    /// `rows` rows of `d` elements as f32, with their row stride: in place where possible, else copied
    /// to `scratch`.
    pub(super) fn wide<'s>(
        &self,
        (b, head): (usize, usize),
        rows: std::ops::Range<usize>,
        d: usize,
        scratch: &'s mut Vec<f32>,
    ) -> (&'s [f32], usize)
    where
        'a: 's,
    {
        if let Some(data) = E::as_f32(self.data) {
            let len = (rows.len() - 1) * self.strides[2] + d;
            return (
                &data[self.at(b, head, rows.start)..][..len],
                self.strides[2],
            );
        }
        scratch.resize(rows.len() * d, 0.0);
        for (row, to) in rows.zip(scratch.chunks_exact_mut(d)) {
            E::widen_all(self.row(b, head, row, d), to);
        }
        (scratch, d)
    }
}

/// As [`View`], to be written.
#[derive(Debug)]
pub struct ViewMut<'a, E> {
    /// From the tensor's first element on.
    pub data: &'a mut [E],
    /// Elements from one sequence, head and row to the next.
    pub strides: [usize; 3],
}

/// Pooled keys and values, as [`super::pool()`] makes them: `[B, Hk, blocks, 3, d]`, contiguous; per key block the
/// mean key, the variance of its keys and the mean value.
#[derive(Debug, Clone, Copy)]
pub struct Pooled<'a> {
    /// All of it.
    pub data: &'a [f32],
    /// Blocks there is room for, at least the key blocks of the shape.
    pub blocks: usize,
}

impl<'a> Pooled<'a> {
    /// From the first block of a head on; blocks are `3 d` apart.
    pub(super) fn head(&self, flat: usize, d: usize) -> &'a [f32] {
        let len = self.blocks * 3 * d;
        &self.data[flat * len..][..len]
    }
}
