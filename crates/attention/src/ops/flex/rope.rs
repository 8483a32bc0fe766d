//! Rotation and append on the CPU, over all threads: queries by rows, keys and values by head and
//! stretches of rows of their caches.

use burn::tensor::{Element, Shape};
use burn_flex::FlexTensor;
use bytemuck::Pod;
use pulp::Arch;
use rayon::prelude::*;

use super::{super::query_dims, rows_contiguous};
use sparse_accelerate_contract::{SPAN_WORDS, Sequence};
use sparse_accelerate_cpu::{FlexFloat, Wide, in_f32};

use crate::diagnostics;

/// Rows of a work item: enough that starting it does not show.
const ROWS: usize = 32;

pub(super) fn rope_append<E: FlexFloat>(
    qkv: FlexTensor,
    rotation: FlexTensor,
    key: FlexTensor,
    value: FlexTensor,
    table: FlexTensor,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    let (qkv, rotation) = (rows_contiguous(qkv), rows_contiguous(rotation));
    let (mut key, mut value) = (whole(key), whole(value));
    let cache = key.layout().shape().clone();
    let (kv_heads, capacity) = (cache[1], cache[2]);
    let dims = query_dims(qkv.layout().shape(), &cache);
    let [batch, heads, rows, d] = dims;
    let spans: &[u32] = &table.storage()[..batch * SPAN_WORDS];
    let pass = Pass::<E>::new(&qkv, &rotation, spans, dims);
    let query = pass.queries();

    let (keys, values) = (filled::<E>(&mut key), filled::<E>(&mut value));
    let heads_of = keys
        .par_chunks_mut(capacity * d)
        .zip(values.par_chunks_mut(capacity * d));
    heads_of.enumerate().for_each(|(at, (keys, values))| {
        let (b, head) = (at / kv_heads, at % kv_heads);
        let sequence = pass.span(b);
        let (offset, kv_len) = (sequence.offset(), sequence.kv_len);
        let new = offset * d..kv_len * d;
        let stretches = keys[new.clone()]
            .par_chunks_mut(ROWS * d)
            .zip(values[new].par_chunks_mut(ROWS * d));
        let copy = |wide: &mut Wide, (stretch, (keys, values)): (usize, (&mut [E], &mut [E]))| {
            let targets = keys.chunks_mut(d).zip(values.chunks_mut(d));
            for (i, (key, value)) in (stretch * ROWS..).zip(targets) {
                let row = b * rows + i;
                let angles = pass.angles.row(sequence.first + offset + i);
                in_f32(pass.head(row, heads + head), key, wide, |from, to| {
                    pass.arch.dispatch(Turn { from, to, angles });
                });
                value.copy_from_slice(pass.head(row, heads + kv_heads + head));
            }
        };
        stretches.enumerate().for_each_init(Wide::default, copy);
    });
    (query, key, value)
}

/// The rows that are rotated, and their angles.
pub(super) struct Pass<'a, E> {
    source: Rows<'a, E>,
    angles: Rows<'a, f32>,
    spans: &'a [u32],
    /// Of the queries: batch, heads, rows, head dim.
    dims: [usize; 4],
    arch: Arch,
}

impl<'a, E: FlexFloat> Pass<'a, E> {
    pub(super) fn new(
        qkv: &'a FlexTensor,
        rotation: &'a FlexTensor,
        spans: &'a [u32],
        dims: [usize; 4],
    ) -> Self {
        Self {
            source: Rows::new(qkv),
            angles: Rows::new(rotation),
            spans,
            dims,
            arch: Arch::new(),
        }
    }

    fn span(&self, b: usize) -> Sequence {
        Sequence::of(self.spans, b)
    }

    /// One head of a row of the product.
    pub(super) fn head(&self, row: usize, head: usize) -> &'a [E] {
        let d = self.dims[3];
        &self.source.row(row)[head * d..(head + 1) * d]
    }

    /// The same in f32, then rotated to an absolute position.
    pub(super) fn turn(
        &self,
        row: usize,
        head: usize,
        position: usize,
        wide: &mut [f32],
        to: &mut [f32],
    ) {
        E::widen_all(self.head(row, head), wide);
        self.arch.dispatch(Turn {
            from: wide,
            to,
            angles: self.angles.row(position),
        });
    }

    /// The rotated queries, `[B, Hq, N, d]`.
    pub(super) fn queries(&self) -> FlexTensor {
        let [batch, heads, rows, d] = self.dims;
        let mut query = FlexTensor::empty(Shape::new([batch, rows, heads, d]), E::dtype());
        let to = query.storage_mut::<E>().par_chunks_mut(heads * d);
        let turn = |wide: &mut Wide, (row, to): (usize, &mut [E])| {
            let (b, i) = (row / rows, row % rows);
            let sequence = self.span(b);
            if i >= sequence.query_len {
                return to.fill(E::narrow(0.0));
            }
            let angles = self.angles.row(sequence.first + sequence.offset() + i);
            in_f32(&self.source.row(row)[..heads * d], to, wide, |from, to| {
                self.arch.dispatch(Turn { from, to, angles });
            });
        };
        to.enumerate()
            .with_min_len(ROWS)
            .for_each_init(Wide::default, turn);
        query.transpose(1, 2)
    }
}

/// Heads side by side, rotated by one row of the table.
struct Turn<'a> {
    from: &'a [f32],
    to: &'a mut [f32],
    angles: &'a [f32],
}

impl pulp::NullaryFnOnce for Turn<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let d = self.angles.len();
        let (cos, sin) = self.angles.split_at(d / 2);
        for (from, to) in self.from.chunks_exact(d).zip(self.to.chunks_exact_mut(d)) {
            let (first, second) = from.split_at(d / 2);
            let (to_first, to_second) = to.split_at_mut(d / 2);
            // Indexed over slices of one length: this becomes vector instructions.
            let half = cos.len();
            let (first, second, sin) = (&first[..half], &second[..half], &sin[..half]);
            let (to_first, to_second) = (&mut to_first[..half], &mut to_second[..half]);
            for i in 0..half {
                to_first[i] = first[i] * cos[i] - second[i] * sin[i];
                to_second[i] = second[i] * cos[i] + first[i] * sin[i];
            }
        }
    }
}

/// A cache to write to, without gaps; a copy is counted where it has another owner.
pub(super) fn whole(cache: FlexTensor) -> FlexTensor {
    if !cache.is_unique() {
        diagnostics::count_append_copy();
    }
    match cache.is_contiguous() {
        true => cache,
        false => cache.to_contiguous(),
    }
}

/// The elements of a tensor without gaps.
pub(super) fn filled<E: Element + Pod>(tensor: &mut FlexTensor) -> &mut [E] {
    let start = tensor.layout().start_offset();
    let len = tensor.layout().num_elements();
    &mut tensor.storage_mut()[start..start + len]
}

/// Rows of a matrix whose last dimension is contiguous.
struct Rows<'a, E> {
    data: &'a [E],
    start: usize,
    stride: usize,
    width: usize,
}

impl<'a, E: Element + Pod> Rows<'a, E> {
    fn new(matrix: &'a FlexTensor) -> Self {
        let layout = matrix.layout();
        Self {
            data: matrix.storage(),
            start: layout.start_offset(),
            stride: layout.strides()[0] as usize,
            width: layout.shape()[1],
        }
    }

    fn row(&self, row: usize) -> &'a [E] {
        let at = self.start + row * self.stride;
        &self.data[at..at + self.width]
    }
}
