//! Decoding: one query row against a long cache.

use anyhow::Result;
use cubecl::{ir::AddressType, server::Handle};
use half::bf16;
use sparse_accelerate_inputs::{Family, Shape, key, oracle, query, value};
use sparse_accelerate_kernels::{
    append,
    attend::{Problem, Stored, Visible},
    int8::{self, CachePart, PER_WORD},
};

use crate::{
    args::{Decode, Sizes},
    device::{Bench, buffer, elem, tensor},
    measure::{Case, measure},
    report::Report,
    table,
};

/// The last row of a prompt attends to all of it.
pub(crate) fn run(bench: &Bench, args: &Decode, report: &mut Report) -> Result<()> {
    let sizes = &args.sizes;
    for &len in &sizes.lens {
        let shape = Shape::new(sizes.heads, sizes.kv_heads, len).with_head_dim(sizes.head_dim);
        let dim = sizes.head_dim;
        let all = query(sizes.seed, Family::Random, shape)?;
        // The last row of every head.
        let q: Vec<bf16> = all
            .chunks_exact(len * dim)
            .flat_map(|head| head[(len - 1) * dim..].iter().copied())
            .collect();
        let mut k = key(sizes.seed, Family::Random, shape)?;
        let mut v = value(sizes.seed, Family::Random, shape)?;
        let upload = |x: &[bf16]| bench.upload(&sizes.dtype.bits(x));
        let (mut keys, mut values) = (upload(&k), upload(&v));
        let scales = match args.int8 {
            true => {
                let scales = bench.upload(&vec![f32::NAN; sizes.kv_heads * 2 * len]);
                for (part, tensor, host) in [
                    (CachePart::Key, &mut keys, &mut k),
                    (CachePart::Value, &mut values, &mut v),
                ] {
                    *tensor = to_bytes(bench, sizes, len, part, (tensor, &scales));
                    *host = to_elements(bench, sizes, len, part, (tensor, &scales))?;
                }
                Some(scales)
            }
            false => None,
        };
        let problem = Problem {
            batch: 1,
            heads: sizes.heads,
            kv_heads: sizes.kv_heads,
            rows: 1,
            keys: len,
            head_dim: dim,
            scale: 1.0 / (dim as f32).sqrt(),
            index: None,
            gated_heads: None,
            visible: Visible::Causal,
            stored: match args.int8 {
                true => Stored::Int8,
                false => Stored::Elements,
            },
        };
        let bytes = if args.int8 { dim + 4 } else { 2 * dim };
        let error = |got: &[u16]| {
            let (mut distance, mut norm) = (0.0, 0.0);
            for h in 0..sizes.heads {
                let g = h / shape.group() * len * dim;
                let row = h * dim..(h + 1) * dim;
                let scale = 1.0 / (dim as f64).sqrt();
                let (keys, values) = (&k[g..g + len * dim], &v[g..g + len * dim]);
                let (exact, _) = oracle::row(&q[row.clone()], keys, values, scale, len, |_| true);
                for (x, y) in got[row].iter().zip(exact) {
                    distance += (f64::from(sizes.dtype.value(*x)) - y).powi(2);
                    norm += y * y;
                }
            }
            Ok(f64::sqrt(distance / norm))
        };
        let case = Case {
            name: if args.int8 { "decode-int8" } else { "decode" },
            len,
            density: 1.0,
            problem,
            tensors: &[upload(&q), keys, values],
            scales: scales.as_ref(),
            table: &table::decode(len),
            pairs: (sizes.heads * len) as u64,
            streamed: Some(2.0 * (sizes.kv_heads * len * bytes) as f64),
        };
        measure(bench, sizes, &case, error, report)?;
    }
    Ok(())
}

/// Words of a part of the cache, made as a prompt's pass would make them; its scales are written too.
fn to_bytes(
    bench: &Bench,
    sizes: &Sizes,
    len: usize,
    part: CachePart,
    (elements, scales): (&Handle, &Handle),
) -> Handle {
    let shape = [1, sizes.kv_heads, len, sizes.head_dim];
    let words = [1, sizes.kv_heads, len, sizes.head_dim / PER_WORD];
    let cache = bench.client.empty(words.iter().product::<usize>() * 4);
    let spans = bench.upload(&[len as u32, len as u32, 0, 0]);
    let scales = tensor(scales, [1, sizes.kv_heads, 2, len]);
    let tensors = append::Tensors {
        cache: tensor(&cache, words),
        new: tensor(elements, shape),
        table: buffer(&spans, 4),
        scales: Some((scales, part)),
        address: AddressType::U32,
    };
    append::launch(&bench.client, shape, elem(sizes.dtype), tensors);
    cache
}

/// Converts int8 words back to elements and prints the time of the conversion.
fn to_elements(
    bench: &Bench,
    sizes: &Sizes,
    len: usize,
    part: CachePart,
    (words, scales): (&Handle, &Handle),
) -> Result<Vec<bf16>> {
    let shape = [1, sizes.kv_heads, len, sizes.head_dim];
    let out = bench.client.empty(shape.iter().product::<usize>() * 2);
    let spans = bench.upload(&[0, len as u32, 0, 0]);
    let go = || {
        let tensors = int8::Tensors {
            words: tensor(words, [1, sizes.kv_heads, len, sizes.head_dim / PER_WORD]),
            scales: tensor(scales, [1, sizes.kv_heads, 2, len]),
            table: buffer(&spans, 4),
            out: tensor(&out, shape),
            address: AddressType::U32,
        };
        int8::launch(&bench.client, shape, part, elem(sizes.dtype), tensors);
    };
    go();
    let bytes = bench.read(&out)?;
    let times = bench.time(sizes.runs, go)?;
    let moved = (3 * shape.iter().product::<usize>()) as f64;
    let median_ms = times[times.len() / 2];
    println!(
        "{part:?} written out: {median_ms:.4} ms, {:.3} TB/s",
        moved / median_ms / 1e9
    );
    let bits: &[u16] = bytemuck::cast_slice(&bytes);
    let value = |x: &u16| bf16::from_f32(sizes.dtype.value(*x));
    Ok(bits.iter().map(value).collect())
}
