//! One work item: the packed query rows of one tile and head group over their key blocks.

use burn::tensor::Element;
use burn_flex::FlexTensor;
use bytemuck::Pod;
use pulp::Arch;

use super::{
    AttendOptions, FlexFloat,
    blocks::{Block, KEY_BLOCK, Keys, blocks},
};
use sparse_accelerate_contract::{IndexRow, SPAN_WORDS, Sequence};
use sparse_accelerate_cpu::{Rows, exp, int8, product, softmax};

use crate::index::{QUERY_TILE, RANGE_ALIGN};

/// A strided `[B, H, rows, d]` tensor as slices.
struct View<'a, E> {
    data: &'a [E],
    offset: usize,
    strides: [isize; 4],
}

impl<'a, E: Element + Pod> View<'a, E> {
    fn new(tensor: &'a FlexTensor) -> Self {
        let s = tensor.layout().strides();
        Self {
            data: tensor.storage(),
            offset: tensor.layout().start_offset(),
            strides: [s[0], s[1], s[2], s[3]],
        }
    }

    fn at(&self, b: usize, h: usize, row: usize) -> usize {
        let [sb, sh, sr, _] = self.strides;
        (self.offset as isize + b as isize * sb + h as isize * sh + row as isize * sr) as usize
    }
}

/// Keys or values.
enum Source<'a, E> {
    Elements(View<'a, E>),
    /// Words of int8, and the scales of which these are part number `.2`.
    Int8(View<'a, u32>, View<'a, f32>, usize),
}

impl<'a, E: FlexFloat> Source<'a, E> {
    fn new(tensor: &'a FlexTensor, scales: Option<&'a FlexTensor>, part: usize) -> Self {
        match scales {
            Some(scales) => Self::Int8(View::new(tensor), View::new(scales), part),
            None => Self::Elements(View::new(tensor)),
        }
    }

    /// Appends one row of `d` elements in f32.
    fn widen(&self, (b, head, position): (usize, usize, usize), d: usize, to: &mut Vec<f32>) {
        match self {
            Self::Elements(view) => {
                let at = view.at(b, head, position);
                to.extend(view.data[at..at + d].iter().map(|x| x.widen()));
            }
            Self::Int8(words, scales, part) => {
                let at = words.at(b, head, position);
                let row = &words.data[at..at + d / 4];
                let scale = scales.data[scales.at(b, head, *part) + position];
                int8::dequantize(row, scale, to);
            }
        }
    }
}

/// Buffers of one thread, reused from item to item.
#[derive(Default)]
pub(super) struct Scratch {
    query: Vec<f32>,
    scores: Vec<f32>,
    out: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    maximum: Vec<f32>,
    sum: Vec<f32>,
}

pub(super) struct Problem<'a, E> {
    /// Batch, query heads, query rows, head dim.
    pub(super) dims: [usize; 4],
    /// Query heads per work item.
    pub(super) pack: usize,
    query: View<'a, E>,
    key: Source<'a, E>,
    value: Source<'a, E>,
    table: &'a [u32],
    group_size: usize,
    options: AttendOptions,
    arch: Arch,
}

impl<'a, E: FlexFloat> Problem<'a, E> {
    pub(super) fn new(
        [query, key, value]: [&'a FlexTensor; 3],
        scales: Option<&'a FlexTensor>,
        table: &'a [u32],
        options: AttendOptions,
    ) -> Self {
        let shape = query.layout().shape();
        let dims = [shape[0], shape[1], shape[2], shape[3]];
        let group_size = dims[1] / key.layout().shape()[1];
        let per_head = options.index_heads == dims[1];
        Self {
            dims,
            pack: if per_head { 1 } else { group_size },
            query: View::new(query),
            key: Source::new(key, scales, 0),
            value: Source::new(value, scales, 1),
            table,
            group_size,
            options,
            arch: Arch::new(),
        }
    }

    /// Key blocks of a tile whose rows stand at `[first, end)`.
    fn blocks(
        &self,
        (b, group, tile): (usize, usize, usize),
        [first, end]: [usize; 2],
    ) -> Vec<Block> {
        let heads = self.options.index_heads;
        if heads == 0 {
            let start = self.options.window.map_or(0, |window| {
                let first = (first + 1).saturating_sub(window as usize);
                (first / RANGE_ALIGN * RANGE_ALIGN) as u32
            });
            return blocks(&[start, end as u32], &[], end, false);
        }
        let groups = self.dims[1] / self.pack;
        let row = (b * heads + group * heads / groups) * self.options.tiles + tile;
        let rows = &self.table[self.dims[0] * SPAN_WORDS..];
        let (ranges, columns) = IndexRow::of(rows, row).keys(self.table);
        blocks(ranges, columns, end, self.options.band.is_some())
    }

    /// Computes one tile of one head group and writes its rows.
    pub(super) fn run(
        &self,
        scratch: &mut Scratch,
        (b, group, tile): (usize, usize, usize),
        out: &Rows<'_, E>,
        lse: &Rows<'_, f32>,
    ) {
        let [_, heads, n_rows, d] = self.dims;
        let Sequence {
            query_len,
            kv_len,
            dense_from,
            ..
        } = Sequence::of(self.table, b);
        let first = tile * QUERY_TILE;
        let last = (first + QUERY_TILE).min(n_rows);
        let live = last.min(query_len).saturating_sub(first);
        let rows = live * self.pack;
        let offset = kv_len - query_len;
        let head = |r: usize| group * self.pack + r % self.pack;
        let kv_head = group * self.pack / self.group_size;

        self.load_query(scratch, b, rows, |r| (head(r), first + r / self.pack));
        scratch.out.clear();
        scratch.out.resize(rows * d, 0.0);
        scratch.maximum.clear();
        scratch.maximum.resize(rows, softmax::UNSEEN);
        scratch.sum.clear();
        scratch.sum.resize(rows, 0.0);

        let walk = match live {
            0 => Vec::new(),
            _ => self.blocks((b, group, tile), [offset + first, offset + first + live]),
        };
        for block in &walk {
            let position = |r: usize| offset + first + r / self.pack;
            self.step(scratch, block, (b, kv_head), rows, position, dense_from);
        }

        for r in 0..(last - first) * self.pack {
            let (h, i) = (head(r), first + r / self.pack);
            #[allow(unsafe_code)]
            // SAFETY: an item writes the rows of its own tile and heads, one at a time.
            let (target, lse) = unsafe {
                (
                    out.row(((b * n_rows + i) * heads + h) * d, d),
                    &mut lse.row((b * heads + h) * n_rows + i, 1)[0],
                )
            };
            let sum = if r < rows { scratch.sum[r] } else { 0.0 };
            // A NaN sum is not 0: it reaches the output.
            if sum == 0.0 {
                target.fill(E::narrow(0.0));
            } else {
                let inverse = 1.0 / sum;
                for (t, &o) in target.iter_mut().zip(&scratch.out[r * d..]) {
                    *t = E::narrow(o * inverse);
                }
            }
            *lse = match sum == 0.0 {
                true => f32::NEG_INFINITY,
                false => scratch.maximum[r] + sum.ln(),
            };
        }
    }

    fn load_query(
        &self,
        scratch: &mut Scratch,
        b: usize,
        rows: usize,
        source: impl Fn(usize) -> (usize, usize),
    ) {
        let d = self.dims[3];
        scratch.query.clear();
        for r in 0..rows {
            let (head, row) = source(r);
            let at = self.query.at(b, head, row);
            let stride = self.query.strides[3];
            let element = |i: usize| self.query.data[(at as isize + i as isize * stride) as usize];
            scratch
                .query
                .extend((0..d).map(|i| element(i).widen() * self.options.scale));
        }
    }

    /// One key block: scores, softmax, output.
    fn step(
        &self,
        scratch: &mut Scratch,
        block: &Block,
        (b, kv_head): (usize, usize),
        rows: usize,
        position: impl Fn(usize) -> usize,
        dense_from: usize,
    ) {
        let d = self.dims[3];
        let keys = block.keys.len();
        if scratch.scores.len() < rows * KEY_BLOCK {
            scratch.scores.resize(rows * KEY_BLOCK, 0.0);
        }
        let key = operand(&self.key, &block.keys, b, kv_head, d, &mut scratch.key);
        // scores [rows, keys] = query [rows, d] . key [keys, d]^T
        product(
            [rows, keys, d],
            &mut scratch.scores,
            false,
            (&scratch.query, [d, 1]),
            (key.0, [1, key.1]),
        );
        for r in 0..rows {
            let row = &mut scratch.scores[r * keys..(r + 1) * keys];
            let p = position(r);
            let seen = block.keys.below(p + 1);
            let (mut hidden_from, mut hidden_to) = (seen, seen);
            if let (true, Some((sink, window))) = (block.banded, self.options.band)
                && p < dense_from
            {
                let from = (p + 1).saturating_sub(window as usize);
                hidden_from = block.keys.below(sink as usize).min(seen);
                hidden_to = block.keys.below(from).clamp(hidden_from, seen);
            }
            // Visible: [0, hidden_from) and [hidden_to, seen), of these what the window shows.
            if let Some(window) = self.options.window {
                let before = block.keys.below((p + 1).saturating_sub(window as usize));
                row[..before].fill(f32::NEG_INFINITY);
            }
            row[hidden_from..hidden_to].fill(f32::NEG_INFINITY);
            row[seen..].fill(f32::NEG_INFINITY);
            let (maximum, sum) = softmax::row(self.arch, row, scratch.maximum[r]);
            let shrink = exp(scratch.maximum[r] - maximum);
            scratch.maximum[r] = maximum;
            scratch.sum[r] = scratch.sum[r] * shrink + sum;
            if shrink != 1.0 {
                for o in &mut scratch.out[r * d..(r + 1) * d] {
                    *o *= shrink;
                }
            }
        }
        let value = operand(&self.value, &block.keys, b, kv_head, d, &mut scratch.value);
        // out [rows, d] += probabilities [rows, keys] . value [keys, d]
        product(
            [rows, d, keys],
            &mut scratch.out,
            true,
            (&scratch.scores, [keys, 1]),
            (value.0, [value.1, 1]),
        );
    }
}

/// A block's rows as f32 with their row stride: in place where possible, else copied.
fn operand<'s, E: FlexFloat>(
    source: &Source<'s, E>,
    keys: &Keys,
    b: usize,
    head: usize,
    d: usize,
    scratch: &'s mut Vec<f32>,
) -> (&'s [f32], usize) {
    if let (Keys::Direct { start, len }, Source::Elements(view)) = (keys, source)
        && let Some(data) = E::as_f32(view.data)
    {
        let stride = view.strides[2] as usize;
        let at = view.at(b, head, *start);
        return (&data[at..at + (len - 1) * stride + d], stride);
    }
    scratch.clear();
    let mut copy = |position: usize| source.widen((b, head, position), d, scratch);
    match keys {
        Keys::Direct { start, len } => (*start..start + len).for_each(&mut copy),
        Keys::Gathered(list) => list.iter().for_each(|&p| copy(p as usize)),
    }
    (scratch, d)
}
