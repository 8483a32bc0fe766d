//! One plan of one problem: run, checked, timed.

use std::time::Instant;

use anyhow::Result;
use cubecl::{
    ir::{AddressType, ElemType},
    server::Handle,
};
use sparse_accelerate_kernels::{
    attend::{
        Plan, Problem, Tensors, Tier, candidates, launch, prepare,
        tune::{self, Tuning, Work},
    },
    int8::PER_WORD,
};

use crate::{
    args::Sizes,
    device::{Bench, buffer, elem, tensor},
    report::Report,
    save::Row,
};

/// One measured case: a problem, its buffers, and the name of its rows.
pub(crate) struct Case<'a> {
    pub(crate) name: &'a str,
    pub(crate) len: usize,
    /// Share of the causal blocks kept.
    pub(crate) density: f64,
    pub(crate) problem: Problem,
    /// Query, key and value.
    pub(crate) tensors: &'a [Handle; 3],
    /// Scales of int8 keys and values.
    pub(crate) scales: Option<&'a Handle>,
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
    let table = bench.upload(case.table);
    let query = [1, problem.heads, problem.rows, problem.head_dim];
    let row = match case.scales {
        Some(_) => problem.head_dim / PER_WORD,
        None => problem.head_dim,
    };
    let key = [1, problem.kv_heads, problem.keys, row];
    let scales = [1, problem.kv_heads, 2, problem.keys];
    let lse = bench.upload(&[f32::NAN]);
    let tensors = |out: &Handle, scratch: Option<&Handle>| Tensors {
        query: tensor(&case.tensors[0], query),
        key: tensor(&case.tensors[1], key),
        value: tensor(&case.tensors[2], key),
        scales: case.scales.map(|handle| tensor(handle, scales)),
        table: buffer(&table, case.table.len()),
        out: tensor(out, query),
        lse: buffer(&lse, 1),
        with_lse: false,
        scratch: scratch.cloned(),
        address: AddressType::U32,
    };
    let nan = || bench.upload(&vec![u16::MAX; query.iter().product()]);
    let first = prepare(problem, elem, properties)?;
    let plans = if sizes.all {
        let all = candidates(problem, elem, properties)?;
        all.into_iter().map(|plan| (plan, None)).collect()
    } else if sizes.tuned {
        let out = nan();
        let tuned = tuned(bench, case, elem, || tensors(&out, None))?;
        match tuned == first {
            true => vec![(first, Some("order and tuner"))],
            false => vec![(first, Some("order")), (tuned, Some("tuner"))],
        }
    } else {
        vec![(first, None)]
    };
    for (plan, choice) in plans {
        let out = nan();
        let scratch = (plan.scratch > 0).then(|| bench.client.empty(plan.scratch * 4));
        let go = || {
            let tensors = tensors(&out, scratch.as_ref());
            launch(&bench.client, problem, &plan, elem, tensors);
        };
        let begin = Instant::now();
        go();
        let bytes = bench.read(&out)?;
        let first_s = begin.elapsed().as_secs_f64();
        let error = error(bytemuck::cast_slice(&bytes))?;
        let what = format!("{} {}, {:?}", case.name, case.len, plan.tier);
        sizes.dtype.check(error, &what)?;
        let times = bench.time(sizes.runs, go)?;
        let median_ms = times[times.len() / 2];
        if let Some(bytes) = case.streamed {
            println!("{:.3} TB/s of K and V", bytes / median_ms / 1e9);
        }
        report.add(Row {
            command: report.command(),
            by: env!("CARGO_PKG_NAME").into(),
            case: case.name.into(),
            len: case.len,
            density: case.density,
            kernel: short(&plan),
            plan: Some(format!("{:?}", plan.tier)),
            choice: choice.map(Into::into),
            median_ms,
            min_ms: times[0],
            tflops: Some(4.0 * problem.head_dim as f64 * case.pairs as f64 / median_ms / 1e9),
            error: Some(error),
            first_s: Some(first_s),
        })?;
    }
    Ok(())
}

/// The tuner's choice for a case, and its measurements.
fn tuned(
    bench: &Bench,
    case: &Case<'_>,
    elem: ElemType,
    tensors: impl Fn() -> Tensors + Sync,
) -> Result<Plan> {
    let problem = &case.problem;
    let offset = case.len - problem.rows;
    let rows = problem.rows as u64;
    let causal_pairs = rows * offset as u64 + rows * (rows + 1) / 2;
    let work = Work {
        causal_pairs,
        density: Some((case.pairs as f64 / (causal_pairs * problem.heads as u64) as f64) as f32),
    };
    let always = Tuning {
        least_operations: 0.0,
    };
    let begin = Instant::now();
    let before = tune::choices().len();
    let plan = tune::prepare(&bench.client, problem, elem, &work, always, tensors)?;
    match tune::choices().get(before) {
        Some(choice) => println!(
            "tuner: {} in {:.1} s; ms {:?}, takes {}",
            choice.key,
            begin.elapsed().as_secs_f64(),
            choice.milliseconds,
            choice.chosen
        ),
        None => println!("tuner: nothing to measure, or its class was measured before"),
    }
    Ok(plan)
}

/// A plan in a few words.
fn short(plan: &Plan) -> String {
    match &plan.tier {
        Tier::Mma(b) => format!("{:?} {} rows, {} keys", b.instruction, b.rows(), b.keys),
        Tier::SplitK(b) => format!("SplitK {} rows, {} splits", b.rows, plan.splits),
        Tier::Unit(b) => format!("Unit {} rows", b.rows()),
        other => format!("{other:?}"),
    }
}
