//! One plan of one problem: run, checked, timed.

use std::time::Instant;

use anyhow::Result;
use cubecl::{ir::AddressType, server::Handle};
use sparse_accelerate_kernels::attend::{Plan, Problem, Tensors, candidates, launch, prepare};

use crate::{
    args::Sizes,
    device::{Bench, buffer, elem, tensor},
    report::{Report, Row},
};

/// What is measured: a problem, its buffers, and what its rows are called.
pub(crate) struct Case<'a> {
    pub(crate) name: &'a str,
    pub(crate) len: usize,
    /// Share of the causal blocks kept.
    pub(crate) density: f64,
    pub(crate) problem: Problem,
    /// Query, key and value.
    pub(crate) tensors: &'a [Handle; 3],
    pub(crate) table: &'a [u32],
    /// Kept causal pairs of all query heads.
    pub(crate) pairs: u64,
    /// Bytes of K and V, where their rate is what counts.
    pub(crate) streamed: Option<f64>,
}

/// Measures the chosen plan, or all; `error` compares an output with f64 attention.
pub(crate) fn measure(
    bench: &Bench,
    sizes: &Sizes,
    case: &Case<'_>,
    error: impl Fn(&[u16]) -> Result<f64>,
    report: &mut Report,
) -> Result<()> {
    let problem = &case.problem;
    let (elem, properties) = (elem(sizes.dtype), bench.client.properties());
    let plans = match sizes.all {
        true => candidates(problem, elem, properties)?,
        false => vec![prepare(problem, elem, properties)?],
    };
    let table = bench.upload(case.table);
    let query = [1, problem.heads, problem.rows, problem.head_dim];
    let key = [1, problem.kv_heads, problem.keys, problem.head_dim];
    for plan in plans {
        let out = bench.upload(&vec![u16::MAX; query.iter().product()]); // NaN
        let lse = bench.upload(&[f32::NAN]);
        let scratch = (plan.scratch > 0).then(|| bench.client.empty(plan.scratch * 4));
        let go = || {
            let tensors = Tensors {
                query: tensor(&case.tensors[0], query),
                key: tensor(&case.tensors[1], key),
                value: tensor(&case.tensors[2], key),
                table: buffer(&table, case.table.len()),
                out: tensor(&out, query),
                lse: buffer(&lse, 1),
                with_lse: false,
                scratch: scratch.clone(),
                address: AddressType::U32,
            };
            launch(&bench.client, problem, &plan, elem, tensors);
        };
        let begin = Instant::now();
        go();
        let bytes = bench.read(&out)?;
        let first_s = begin.elapsed().as_secs_f64();
        let error = error(bytemuck::cast_slice(&bytes))?;
        let plan = describe(&plan);
        sizes
            .dtype
            .check(error, &format!("{} {}, {plan}", case.name, case.len))?;
        let times = bench.time(sizes.runs, go)?;
        let median_ms = times[times.len() / 2];
        if let Some(bytes) = case.streamed {
            println!("{:.3} TB/s of K and V", bytes / median_ms / 1e9);
        }
        report.add(Row {
            case: case.name.into(),
            len: case.len,
            density: case.density,
            plan,
            median_ms,
            min_ms: times[0],
            tflops: 4.0 * problem.head_dim as f64 * case.pairs as f64 / median_ms / 1e9,
            error,
            first_s,
        });
    }
    Ok(())
}

fn describe(plan: &Plan) -> String {
    format!("{:?}", plan.tier)
}
