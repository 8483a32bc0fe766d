//! Int8 caches on the CPU.

use burn::{
    backend::Flex,
    tensor::{DType, bf16, f16},
};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::{attend_typed, rope, rows_contiguous};
use sparse_accelerate_contract::{SPAN_WORDS, Sequence};
use sparse_accelerate_cpu::{FlexFloat, int8};

use crate::ops::{AttendOptions, CachePart, Int8CacheOps, query_dims};

/// Bytes of a word.
const PER_WORD: usize = 4;

impl Int8CacheOps for Flex {
    fn rope_append_int8(
        qkv: FlexTensor,
        rotation: FlexTensor,
        key: FlexTensor,
        value: FlexTensor,
        scales: FlexTensor,
        table: FlexTensor,
    ) -> (FlexTensor, FlexTensor, FlexTensor, FlexTensor) {
        let caches = [key, value, scales];
        match qkv.dtype() {
            DType::F32 => rope_append::<f32>(qkv, rotation, caches, table),
            DType::F16 => rope_append::<f16>(qkv, rotation, caches, table),
            DType::BF16 => rope_append::<bf16>(qkv, rotation, caches, table),
            // The public functions check the type; only a direct call of the extension gets here.
            other => panic!("rope: element type {other:?} is not supported"),
        }
    }

    fn append_int8(
        words: FlexTensor,
        scales: FlexTensor,
        new: FlexTensor,
        table: FlexTensor,
        part: CachePart,
    ) -> (FlexTensor, FlexTensor) {
        match new.dtype() {
            DType::F32 => append::<f32>(words, scales, new, table, part),
            DType::F16 => append::<f16>(words, scales, new, table, part),
            DType::BF16 => append::<bf16>(words, scales, new, table, part),
            other => panic!("append: element type {other:?} is not supported"),
        }
    }

    fn dequantize_cache(
        out: FlexTensor,
        words: FlexTensor,
        scales: FlexTensor,
        table: FlexTensor,
        part: CachePart,
        _rows: usize,
    ) -> FlexTensor {
        match out.dtype() {
            DType::F32 => dequantize::<f32>(out, words, scales, table, part),
            DType::F16 => dequantize::<f16>(out, words, scales, table, part),
            DType::BF16 => dequantize::<bf16>(out, words, scales, table, part),
            other => panic!("dequantize: element type {other:?} is not supported"),
        }
    }

    fn attend_int8(
        query: FlexTensor,
        key: FlexTensor,
        value: FlexTensor,
        scales: FlexTensor,
        table: FlexTensor,
        options: AttendOptions,
    ) -> FlexTensor {
        let scales = Some(scales);
        match query.dtype() {
            DType::F32 => attend_typed::<f32>(query, key, value, scales, table, options).0,
            DType::F16 => attend_typed::<f16>(query, key, value, scales, table, options).0,
            DType::BF16 => attend_typed::<bf16>(query, key, value, scales, table, options).0,
            other => panic!("attend: element type {other:?} is not supported"),
        }
    }
}

/// Query rows and keys of sequence `b`.
fn span(spans: &[u32], b: usize) -> (usize, usize) {
    let sequence = Sequence::of(spans, b);
    (sequence.query_len, sequence.kv_len)
}

fn rope_append<E: FlexFloat>(
    qkv: FlexTensor,
    rotation: FlexTensor,
    caches: [FlexTensor; 3],
    table: FlexTensor,
) -> (FlexTensor, FlexTensor, FlexTensor, FlexTensor) {
    let (qkv, rotation) = (rows_contiguous(qkv), rows_contiguous(rotation));
    let [mut key, mut value, mut scales] = caches.map(rope::whole);
    let shape = key.layout().shape();
    let [batch, kv_heads, capacity, words] = [shape[0], shape[1], shape[2], shape[3]];
    let d = words * PER_WORD;
    let dims = query_dims(qkv.layout().shape(), &[batch, kv_heads, capacity, d]);
    let spans: &[u32] = &table.storage()[..batch * SPAN_WORDS];
    let pass = rope::Pass::<E>::new(&qkv, &rotation, spans, dims);
    let query = pass.queries();
    let [_, heads, rows, _] = dims;

    let keys = rope::filled::<u32>(&mut key).par_chunks_mut(capacity * words);
    let values = rope::filled::<u32>(&mut value).par_chunks_mut(capacity * words);
    let scales_of = rope::filled::<f32>(&mut scales).par_chunks_mut(2 * capacity);
    let of_heads = keys.zip(values).zip(scales_of).enumerate();
    of_heads.for_each_init(Vec::new, |wide, (at, ((keys, values), scales))| {
        let (b, head) = (at / kv_heads, at % kv_heads);
        let sequence = Sequence::of(spans, b);
        let (key_scales, value_scales) = scales.split_at_mut(capacity);
        wide.resize(2 * d, 0.0);
        let (from, turned) = wide.split_at_mut(d);
        for i in 0..sequence.query_len {
            let position = sequence.offset() + i;
            let words = position * words..(position + 1) * words;
            let absolute = sequence.first + position;
            pass.turn(b * rows + i, heads + head, absolute, from, turned);
            key_scales[position] = int8::quantize(turned, &mut keys[words.clone()]);
            E::widen_all(pass.head(b * rows + i, heads + kv_heads + head), from);
            value_scales[position] = int8::quantize(from, &mut values[words]);
        }
    });
    (query, key, value, scales)
}

fn append<E: FlexFloat>(
    words: FlexTensor,
    scales: FlexTensor,
    new: FlexTensor,
    table: FlexTensor,
    part: CachePart,
) -> (FlexTensor, FlexTensor) {
    let new = rows_contiguous(new);
    let [mut words, mut scales] = [words, scales].map(rope::whole);
    let shape = words.layout().shape();
    let [batch, heads, capacity, width] = [shape[0], shape[1], shape[2], shape[3]];
    let spans: &[u32] = &table.storage()[..batch * SPAN_WORDS];
    let (strides, start) = (new.layout().strides(), new.layout().start_offset());
    let source: &[E] = new.storage();
    let mut wide = vec![0.0; width * PER_WORD];
    let to = rope::filled::<u32>(&mut words).chunks_mut(capacity * width);
    let scales_of = rope::filled::<f32>(&mut scales).chunks_mut(2 * capacity);
    for (at, (to, scales)) in to.zip(scales_of).enumerate() {
        let (b, head) = (at / heads, at % heads);
        let (query_len, kv_len) = span(spans, b);
        for i in 0..query_len {
            let position = kv_len - query_len + i;
            let from = start
                + b * strides[0] as usize
                + head * strides[1] as usize
                + i * strides[2] as usize;
            E::widen_all(&source[from..from + wide.len()], &mut wide);
            scales[part.index() * capacity + position] =
                int8::quantize(&wide, &mut to[position * width..(position + 1) * width]);
        }
    }
    (words, scales)
}

fn dequantize<E: FlexFloat>(
    out: FlexTensor,
    words: FlexTensor,
    scales: FlexTensor,
    table: FlexTensor,
    part: CachePart,
) -> FlexTensor {
    let (words, scales) = (words.to_contiguous(), scales.to_contiguous());
    let mut out = rope::whole(out);
    let shape = words.layout().shape();
    let [batch, heads, capacity, width] = [shape[0], shape[1], shape[2], shape[3]];
    let spans: &[u32] = &table.storage()[..batch * SPAN_WORDS];
    let words = &words.storage::<u32>()[words.layout().start_offset()..];
    let scales = &scales.storage::<f32>()[scales.layout().start_offset()..];
    let d = width * PER_WORD;
    let of_heads = rope::filled::<E>(&mut out).par_chunks_mut(capacity * d);
    of_heads
        .enumerate()
        .for_each_init(Vec::new, |wide, (at, out)| {
            let (_, kv_len) = span(spans, at / heads);
            for (row, out) in out.chunks_mut(d).take(kv_len).enumerate() {
                wide.clear();
                let words = &words[(at * capacity + row) * width..][..width];
                int8::dequantize(
                    words,
                    scales[(2 * at + part.index()) * capacity + row],
                    wide,
                );
                E::narrow_all(wide, out);
            }
        });
    out
}
