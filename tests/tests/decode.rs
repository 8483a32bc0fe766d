//! The decode tier against the f64 oracle: ragged batches in a longer cache that is NaN past each
//! sequence, outputs and scratch prefilled with NaN; groups, head dimensions, types, indexes.
#![cfg(any(feature = "wgpu", feature = "cuda-runtime"))]

use burn::tensor::DType;
use cubecl::{
    client::Client,
    features::Plane,
    ir::{ElemType, FloatKind},
};
use sparse_accelerate::{AttentionSettings, Triangular, attend, index, index::TileIndex};
use sparse_accelerate_kernels::attend::{Plan, Tier, prepare};
use sparse_accelerate_tests::{
    backends, launches, oracle,
    problem::{Layout, Problem},
    tolerance,
};

fn run(problem: &Problem, index: Option<&TileIndex>, last: usize) {
    for (name, client) in launches::clients() {
        if launches::dtypes(name).contains(&problem.dtype) {
            on(name, &client, problem, index, last);
        }
    }
}

/// Twice with the device's properties, once as if it had no plane operations.
fn on(name: &str, client: &Client, problem: &Problem, index: Option<&TileIndex>, last: usize) {
    let inputs = problem.inputs(11);
    let name = format!(
        "{name}/{:?}/{:?}/{:?}",
        problem.dtype,
        problem.query_dims(),
        problem.spans
    );
    let mut device = client.properties().clone();
    let run = |device: &_| launches::run(&name, client, device, problem, &inputs, index, last);
    let first = run(&device);
    let Tier::SplitK(blueprint) = first.plan.tier else {
        panic!("{name}: {:?}", first.plan)
    };
    launches::compare(&name, problem, &inputs, index, &first);
    let again = run(&device);
    assert_eq!(
        (first.out, first.lse),
        (again.out, again.lse),
        "{name}: two runs"
    );
    if blueprint.planes {
        device.features.plane.remove(Plane::Ops);
        let without = format!("{name} without planes");
        launches::compare(&without, problem, &inputs, index, &run(&device));
    }
}

#[test]
fn head_dims_and_types() {
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        for (head_dim, longest) in [(32, 4097), (72, 1000), (128, 4097), (256, 700)] {
            let spans = [(1, 1), (1, 100), (1, longest)];
            run(&Problem::decoding(dtype, [4, 1, head_dim], &spans), None, 0);
        }
    }
}

#[test]
fn groups() {
    for group in [1, 2, 3, 4, 5, 7, 8, 16] {
        run(
            &Problem::decoding(
                DType::F32,
                [2 * group, 2, 64],
                &[(1, 1), (1, 700), (1, 300)],
            ),
            None,
            0,
        );
    }
}

#[test]
fn several_rows_per_sequence() {
    let spans = [(4, 700), (1, 1), (3, 300), (2, 2)];
    for [heads, kv_heads] in [[2, 2], [6, 2], [8, 1]] {
        run(
            &Problem::decoding(DType::F32, [heads, kv_heads, 40], &spans),
            None,
            0,
        );
    }
}

#[test]
fn large_logits() {
    let problem = Problem {
        magnitude: 8.0,
        ..Problem::decoding(DType::F32, [8, 2, 64], &[(1, 900), (2, 300)])
    };
    run(&problem, None, 0);
}

#[test]
fn bands() {
    let spans = [(1, 1), (3, 1500), (1, 600)];
    for (heads, last) in [([8, 2, 32], 0), ([2, 2, 72], 22), ([4, 2, 32], 19)] {
        let pattern = Triangular {
            sink: 19,
            window: 401,
            last,
        };
        let problem = Problem::decoding(DType::F32, heads, &spans);
        let index = index::triangular(&problem.spans, &pattern).expect("index");
        run(&problem, Some(&index), last);
    }
}

#[test]
fn columns_and_ranges_per_index_head() {
    for heads in [1, 2, 6] {
        let problem = Problem::decoding(DType::F32, [6, 2, 48], &[(1, 3), (2, 1400), (1, 500)]);
        let columns: Vec<Vec<usize>> = (0..heads)
            .map(|h| (0..1300).step_by(5 + h).collect())
            .collect();
        let offsets: Vec<Vec<usize>> = (0..heads).map(|h| vec![0, 90 + 11 * h, 400, 401]).collect();
        let index = index::interval_slash(&problem.spans, &columns, &offsets).expect("index");
        run(&problem, Some(&index), 0);
    }
}

fn plan(problem: &Problem, processors: u32) -> Plan {
    let (_, client) = launches::clients().remove(0);
    let mut device = client.properties().clone();
    device.hardware.num_streaming_multiprocessors = Some(processors);
    let elem = ElemType::Float(FloatKind::F32);
    prepare(&launches::request(problem, None), elem, &device).expect("plan")
}

#[test]
fn splits_fill_the_device() {
    let of =
        |heads, spans: &[(usize, usize)]| plan(&Problem::decoding(DType::F32, heads, spans), 132);
    let one = of([32, 8, 128], &[(1, 1 << 17)]);
    assert_eq!((one.splits, one.cubes), (49, 392));
    assert_eq!(one.scratch, 392 * 4 * (128 + 4));
    // No split is shorter than 256 keys, none longer than 8192.
    assert_eq!(of([32, 8, 128], &[(1, 1000)]).splits, 4);
    assert_eq!(of([32, 8, 128], &[(1, 1 << 17); 128]).splits, 17);
    assert_eq!(of([32, 8, 128], &[(1, 4000); 128]).splits, 1);
}

#[test]
fn many_rows_or_few_keys_are_left_to_other_tiers() {
    let split = |heads, spans: &[(usize, usize)]| {
        matches!(
            plan(&Problem::decoding(DType::F32, heads, spans), 8).tier,
            Tier::SplitK(_)
        )
    };
    assert!(split([8, 1, 64], &[(4, 1000)]));
    assert!(!split([8, 1, 64], &[(5, 1000)]));
    assert!(!split([9, 1, 64], &[(4, 1000)]));
    assert!(split([8, 1, 64], &[(1, 253)]));
    assert!(!split([8, 1, 64], &[(1, 200)]));
}

#[test]
fn the_public_call_decodes() {
    for backend in backends::all() {
        for &dtype in &backend.dtypes {
            let problem = Problem {
                layout: Layout::Swapped,
                ..Problem::decoding(dtype, [6, 2, 40], &[(2, 600), (1, 30), (1, 300)])
            };
            let inputs = problem.inputs(5);
            let settings = AttentionSettings::dense();
            let plan = problem.plan(&settings, &backend.device);
            let at = |v: &[f32], dims| problem.tensor(v, dims, problem.layout, &backend.device);
            let (key, value) = (
                at(&inputs.key, problem.key_dims()),
                at(&inputs.value, problem.key_dims()),
            );
            let query = at(&inputs.query, problem.query_dims());
            let out = attend(query, &key, &value, &plan.layer(0).expect("layer"))
                .expect("attend")
                .into_data();
            let out = out.convert::<f32>().try_to_vec::<f32>().expect("f32");
            let sees = oracle::causal(&problem);
            let exact = oracle::exact(&problem, &inputs, &sees);
            let plain = oracle::plain(&problem, &inputs, &sees);
            tolerance::check(backend.name, dtype, &out, &exact.out, &plain.out);
        }
    }
}
