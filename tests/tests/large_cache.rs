//! A cache of more than 2^32 elements: its last tokens are appended, attended to and decoded over by
//! 64-bit addresses. What lies before them is zeros, so the formula needs only the last tokens: a zero
//! key has the score 0 and its value adds nothing.
//!
//! 17 GiB on the device; runs where one allocation may be half of that, which is CUDA.
#![cfg(feature = "cuda-runtime")]

use burn::{
    backend::DispatchDevice,
    tensor::{DType, Device, Tensor},
};
use sparse_accelerate::{
    AttentionPlan, AttentionSettings, Pattern, Span, Triangular, Visible, append_kv,
    attend_with_lse,
};
use sparse_accelerate_tests::{
    backends::{self, Backend},
    oracle,
    problem::{Inputs, Layout, Problem, floats},
    tolerance,
};

const HEADS: [usize; 3] = [32, 8, 128];
/// Tokens of the cache: 8 heads of 128 elements pass 2^32 in the last head.
const CAPACITY: usize = (1 << 22) + 1024;
/// Tokens that are not zeros.
const KNOWN: usize = 704;
const WINDOW: usize = 512;

/// The last `rows` of `KNOWN` tokens, in a cache of just those.
fn near(rows: usize) -> Problem {
    Problem {
        spans: vec![Span {
            query_len: rows,
            kv_len: KNOWN,
            prompt_len: KNOWN,
        }],
        ..Problem::whole(DType::BF16, HEADS, KNOWN)
    }
}

/// The same rows at the end of the cache.
fn far(rows: usize) -> [Span; 1] {
    [Span {
        query_len: rows,
        kv_len: CAPACITY,
        prompt_len: CAPACITY,
    }]
}

fn plan(settings: &AttentionSettings, rows: usize, device: &Device) -> AttentionPlan {
    let heads = near(rows).model_heads();
    AttentionPlan::new(settings, &far(rows), heads, Visible::Causal, device).expect("plan")
}

/// Keys and values, zeros but for the last `KNOWN` tokens; `None` where they do not fit.
fn caches(backend: &Backend, inputs: &Inputs) -> Option<[Tensor<4>; 2]> {
    let device = &backend.device;
    let DispatchDevice::Cube(cube) = device.as_dispatch() else {
        return None;
    };
    let page = cube.client().properties().memory.max_page_size;
    let dims = [1, HEADS[1], CAPACITY, HEADS[2]];
    let bytes = 2 * dims.iter().product::<usize>() as u64;
    if page < bytes {
        println!(
            "skipped {}: {bytes} bytes in one buffer, {page} at most",
            backend.name
        );
        return None;
    }
    let problem = near(KNOWN);
    let plan = plan(&AttentionSettings::dense(), KNOWN, device);
    let cache = |values: &[f32]| {
        let new = problem.tensor(values, problem.key_dims(), Layout::Contiguous, device);
        let zeros = Tensor::<4>::zeros(dims, (device, DType::BF16));
        append_kv(zeros, new, &plan).expect("append")
    };
    Some([cache(&inputs.key), cache(&inputs.value)])
}

#[test]
fn appended_attended_and_decoded_past_32_bits() {
    for backend in backends::with_kernels() {
        if !backend.dtypes.contains(&DType::BF16) {
            continue;
        }
        let inputs = near(KNOWN).inputs(3);
        let Some([key, value]) = caches(&backend, &inputs) else {
            continue;
        };
        for rows in [192, 1] {
            // The last rows of the same inputs.
            let problem = near(rows);
            let query: Vec<f32> = (0..HEADS[0])
                .flat_map(|head| {
                    let end = (head + 1) * KNOWN * HEADS[2];
                    inputs.query[end - rows * HEADS[2]..end].to_vec()
                })
                .collect();
            let inputs = Inputs {
                query,
                ..inputs.clone()
            };
            let device = &backend.device;
            let dims = problem.query_dims();
            let query = problem.tensor(&inputs.query, dims, Layout::Contiguous, device);
            let run = |settings: &AttentionSettings| {
                let plan = plan(settings, rows, device);
                let (out, lse) =
                    attend_with_lse(query.clone(), &key, &value, &plan.layer(0).expect("layer"))
                        .expect("run");
                (floats(out), floats(lse))
            };

            let window = Pattern::Triangular(Triangular {
                sink: 0,
                window: WINDOW,
                last: 0,
            });
            let got = run(&AttentionSettings::sparse(window));
            let sees = |_: usize, _: usize, i: usize, j: usize| {
                let p = KNOWN - rows + i;
                j <= p && p - j < WINDOW
            };
            compare("window", &problem, &inputs, &sees, 0, &got);

            let got = run(&AttentionSettings::dense());
            let sees = |_: usize, _: usize, i: usize, j: usize| j <= KNOWN - rows + i;
            let zeros = CAPACITY - KNOWN;
            compare("dense", &problem, &inputs, &sees, zeros, &got);
        }
    }
}

/// Compares with the formula, to which `zeros` keys of zeros are added.
fn compare(
    name: &str,
    problem: &Problem,
    inputs: &Inputs,
    sees: &oracle::Sees<'_>,
    zeros: usize,
    got: &(Vec<f32>, Vec<f32>),
) {
    let rows = problem.rows();
    let widen = |mut expected: oracle::Expected| {
        for (row, lse) in expected.lse.iter_mut().enumerate() {
            // ln(e^lse + zeros), and the share of what was there before.
            let top = lse.max(0.0);
            let all = top + ((*lse - top).exp() + zeros as f64 * (-top).exp()).ln();
            let share = (*lse - all).exp();
            *lse = all;
            let d = problem.head_dim;
            for x in &mut expected.out[row * d..(row + 1) * d] {
                *x *= share;
            }
        }
        expected
    };
    let exact = widen(oracle::exact(problem, inputs, sees));
    let plain = widen(oracle::plain(problem, inputs, sees));
    let name = format!("{name}/{rows} rows");
    let out = format!("{name}/out");
    tolerance::check(&out, problem.dtype, &got.0, &exact.out, &plain.out);
    let lse = format!("{name}/lse");
    tolerance::check(&lse, problem.dtype, &got.1, &exact.lse, &plain.lse);
}
