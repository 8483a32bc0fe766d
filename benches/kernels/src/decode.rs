//! Decoding: one query row against a long cache.

use anyhow::Result;
use sparse_accelerate_bench_inputs::{Family, Shape, key, oracle, query, value};
use sparse_accelerate_kernels::attend::{Problem, Stored};

use crate::{
    args::Sizes,
    device::Bench,
    measure::{Case, measure},
    report::Report,
};

/// The last row of a prompt attends to all of it.
pub(crate) fn run(bench: &Bench, sizes: &Sizes, report: &mut Report) -> Result<()> {
    for &len in &sizes.lens {
        let shape = Shape::new(sizes.heads, sizes.kv_heads, len).with_head_dim(sizes.head_dim);
        let dim = sizes.head_dim;
        let all = query(sizes.seed, Family::Random, shape)?;
        // The last row of every head.
        let q: Vec<half::bf16> = all
            .chunks_exact(len * dim)
            .flat_map(|head| head[(len - 1) * dim..].iter().copied())
            .collect();
        let k = key(sizes.seed, Family::Random, shape)?;
        let v = value(sizes.seed, Family::Random, shape)?;
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
            stored: Stored::Elements,
        };
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
            name: "decode",
            len,
            density: 1.0,
            problem,
            tensors: &[&q, &k, &v].map(|x| bench.upload(&sizes.dtype.bits(x))),
            table: &[1, len as u32, u32::MAX, 0],
            pairs: (sizes.heads * len) as u64,
            streamed: Some(2.0 * (sizes.kv_heads * len * dim * 2) as f64),
        };
        measure(bench, sizes, &case, error, report)?;
    }
    Ok(())
}
