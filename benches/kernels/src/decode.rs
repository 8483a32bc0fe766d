//! Decoding: one query row against a long cache.

use std::time::Instant;

use anyhow::Result;
use cubecl::ir::AddressType;
use sparse_accelerate_bench_inputs::{Family, Shape, key, oracle, query, value};
use sparse_accelerate_kernels::attend::{Problem, Tensors, candidates, launch, prepare};

use crate::{
    args::Sizes,
    device::{Bench, buffer, elem, tensor},
    report::{Report, Row},
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
        };
        let (elem, properties) = (elem(sizes.dtype), bench.client.properties());
        let plans = match sizes.all {
            true => candidates(&problem, elem, properties)?,
            false => vec![prepare(&problem, elem, properties)?],
        };
        let [qd, kd, vd] = [&q, &k, &v].map(|x| bench.upload(&sizes.dtype.bits(x)));
        let table = bench.upload(&[1, len as u32, u32::MAX, 0]);
        for plan in plans {
            let out = bench.upload(&vec![u16::MAX; q.len()]); // NaN
            let lse = bench.upload(&[f32::NAN]);
            let scratch = (plan.scratch > 0).then(|| bench.client.empty(plan.scratch * 4));
            let go = || {
                let key = [1, sizes.kv_heads, len, dim];
                let tensors = Tensors {
                    query: tensor(&qd, [1, sizes.heads, 1, dim]),
                    key: tensor(&kd, key),
                    value: tensor(&vd, key),
                    table: buffer(&table, 4),
                    out: tensor(&out, [1, sizes.heads, 1, dim]),
                    lse: buffer(&lse, 1),
                    with_lse: false,
                    scratch: scratch.clone(),
                    address: AddressType::U32,
                };
                launch(&bench.client, &problem, &plan, elem, tensors);
            };
            let begin = Instant::now();
            go();
            let bytes = bench.read(&out)?;
            let first_s = begin.elapsed().as_secs_f64();
            let got: &[u16] = bytemuck::cast_slice(&bytes);
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
            let error = f64::sqrt(distance / norm);
            sizes
                .dtype
                .check(error, &format!("decode {len}, {:?}", plan.tier))?;
            let times = bench.time(sizes.runs, go)?;
            let median_ms = times[times.len() / 2];
            let read = 2.0 * (sizes.kv_heads * len * dim * 2) as f64;
            println!("{:.3} TB/s of K and V", read / median_ms / 1e9);
            report.add(Row {
                case: "decode".into(),
                len,
                density: 1.0,
                plan: format!("{:?}", plan.tier),
                median_ms,
                min_ms: times[0],
                tflops: 4.0 * (dim * sizes.heads * len) as f64 / median_ms / 1e9,
                error,
                first_s,
            });
        }
    }
    Ok(())
}
