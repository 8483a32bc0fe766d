//! Gates: a sparse and a dense launch over the same table and outputs write every row once, each the heads
//! that are its own, with the bits that it would have written without gates.
#![cfg(any(feature = "wgpu", feature = "cuda-runtime"))]

use burn::tensor::DType;
use cubecl::{client::Client, ir::AddressType};
use sparse_accelerate::{index, index::TileIndex};
use sparse_accelerate_kernels::attend::{self, Plan, Tier};
use sparse_accelerate_tests::{
    launches,
    launches::BEYOND,
    problem::{Inputs, Problem},
};

/// The tier as it is without gates.
fn plain(mut tier: Tier) -> Tier {
    match &mut tier {
        Tier::Mma(b) => b.gated = false,
        Tier::Cmma(b) => b.gated = false,
        Tier::Unit(b) => b.gated = false,
        _ => panic!("{tier:?} knows no gates"),
    }
    tier
}

/// Keys or values of every query head, so that an ungated launch packs no heads either.
fn spread(values: &[f32], problem: &Problem) -> Vec<f32> {
    let head = problem.keys() * problem.head_dim;
    let group = problem.heads / problem.kv_heads;
    let repeat = |rows: &[f32]| rows.repeat(group);
    values.chunks_exact(head).flat_map(repeat).collect()
}

/// Output and log-sum-exp of a launch without gates.
fn alone(
    name: &str,
    client: &Client,
    problem: &Problem,
    inputs: &Inputs,
    index: Option<&TileIndex>,
    tier: Tier,
    heads: usize,
) -> (Vec<f32>, Vec<f32>) {
    let (mut problem, mut inputs) = (problem.clone(), inputs.clone());
    if index.is_none() && heads == problem.heads {
        inputs.key = spread(&inputs.key, &problem);
        inputs.value = spread(&inputs.value, &problem);
        problem.kv_heads = problem.heads;
    }
    let request = launches::request(&problem, index);
    let plan = Plan::new(&request, plain(tier), client.properties()).expect("plan");
    let address = AddressType::U32;
    let written = launches::run_plan(name, client, &plan, address, &problem, &inputs, index, 0);
    (written.out, written.lse)
}

/// Launches every pair of a sparse and a dense plan, under each of the given gates.
fn pairs(name: &str, client: &Client, problem: &Problem, index: &TileIndex, ways: &[Vec<u32>]) {
    let heads = index.heads();
    let inputs = problem.inputs(3);
    let (q, k, dtype) = (problem.query_dims(), problem.key_dims(), problem.dtype);
    let elem = launches::elem(dtype);
    let gated = |index| attend::Problem {
        gated_heads: Some(heads),
        ..launches::request(problem, index)
    };
    let requests = [gated(Some(index)), gated(None)];
    let [sparse, dense] = requests.map(|request| {
        let plans = attend::candidates(&request, elem, client.properties()).expect("plans");
        assert!(!plans.is_empty());
        plans
    });
    let inputs_on = [(&inputs.query, q), (&inputs.key, k), (&inputs.value, k)]
        .map(|(values, shape)| (launches::upload_as(client, values, dtype), shape));
    let (out_len, lse_len) = (q.iter().product::<usize>(), q[0] * q[1] * q[2]);
    for i in 0..sparse.len().max(dense.len()) {
        let plans = [sparse[i % sparse.len()], dense[i % dense.len()]];
        let name = format!("{name}/{dtype:?}/{:?}", plans.map(|p| p.tier));
        let expected = [(Some(index), plans[0].tier), (None, plans[1].tier)]
            .map(|(index, tier)| alone(&name, client, problem, &inputs, index, tier, heads));
        for gates in ways {
            let rows = launches::gated_table(Some(index), &problem.spans, 0, gates);
            let table = launches::upload(client, &rows);
            let out = launches::upload_as(client, &vec![f32::NAN; out_len + BEYOND], dtype);
            let lse = launches::upload(client, &vec![f32::NAN; lse_len + BEYOND]);
            for (request, plan) in requests.iter().zip(&plans) {
                let [query, key, value] =
                    [0, 1, 2].map(|i| launches::tensor(&inputs_on[i].0, inputs_on[i].1));
                let tensors = attend::Tensors {
                    query,
                    key,
                    value,
                    scales: None,
                    table: launches::buffer(&table, rows.len()),
                    out: launches::tensor(&out, q),
                    lse: launches::buffer(&lse, lse_len),
                    with_lse: true,
                    scratch: None,
                    address: AddressType::U32,
                };
                attend::launch(client, request, plan, elem, tensors);
            }
            let out = launches::read(client, out, dtype);
            let lse = launches::read(client, lse, DType::F32);
            let beyond = out[out_len..].iter().chain(&lse[lse_len..]);
            assert!(beyond.into_iter().all(|x| x.is_nan()), "{name}: wrote past");
            for at in 0..lse_len {
                let (b, h) = (at / (q[1] * q[2]), at / q[2] % q[1]);
                let gate = gates[b * heads + h * heads / q[1]] as usize;
                let row = at * q[3]..(at + 1) * q[3];
                let same = |x: f32, y: f32| x.to_bits() == y.to_bits() && !x.is_nan();
                let (want, want_lse) = &expected[gate];
                assert!(
                    same(lse[at], want_lse[at]),
                    "{name}: {gates:?}: lse of row {at}"
                );
                let mut rows = out[row.clone()].iter().zip(&want[row]);
                assert!(
                    rows.all(|(x, y)| same(*x, *y)),
                    "{name}: {gates:?}: row {at}"
                );
            }
        }
    }
}

fn on(name: &str, client: &Client, problem: &Problem, index_heads: usize) {
    let columns: Vec<Vec<usize>> = (0..index_heads)
        .map(|h| (0..problem.keys() / 2).step_by(5 + h).collect())
        .collect();
    let offsets: Vec<Vec<usize>> = (0..index_heads).map(|h| vec![0, 40 + 11 * h]).collect();
    let index = index::interval_slash(&problem.spans, &columns, &offsets).expect("index");
    let count = problem.spans.len() * index_heads;
    // All ways for few gates; for many none, all, and two that mix neighbours and sequences.
    let ways: Vec<usize> = match count {
        ..=3 => (0..1 << count).collect(),
        _ => vec![0, usize::MAX, 0x5555_5556, 0x6cb3_9a5d],
    };
    let gates = |way: usize| (0..count).map(|i| (way >> i & 1) as u32).collect();
    let ways: Vec<Vec<u32>> = ways.into_iter().map(gates).collect();
    pairs(name, client, problem, &index, &ways);
}

#[test]
fn gates_of_kv_heads() {
    launches::each_device(|name, client, dtype| {
        on(
            name,
            client,
            &Problem::ragged(dtype, [4, 2, 64], &[(65, 100)]),
            2,
        );
        on(
            name,
            client,
            &Problem::ragged(dtype, [7, 1, 64], &[(63, 63)]),
            1,
        );
        on(
            name,
            client,
            &Problem::ragged(dtype, [6, 2, 80], &[(64, 90), (3, 80)]),
            2,
        );
    });
}

#[test]
fn gates_shared_by_kv_heads() {
    launches::each_device(|name, client, dtype| {
        on(
            name,
            client,
            &Problem::ragged(dtype, [8, 4, 64], &[(10, 70)]),
            2,
        );
    });
}

#[test]
fn gates_of_query_heads() {
    launches::each_device(|name, client, dtype| {
        on(
            name,
            client,
            &Problem::ragged(dtype, [4, 2, 128], &[(65, 65)]),
            4,
        );
        on(
            name,
            client,
            &Problem::ragged(dtype, [3, 1, 32], &[(1, 130), (63, 127)]),
            3,
        );
    });
}

#[test]
fn gates_under_a_window() {
    launches::each_device(|name, client, dtype| {
        for window in [1, 33, 64] {
            let problem = Problem {
                window: Some(window),
                ..Problem::ragged(dtype, [4, 2, 64], &[(65, 100), (3, 80)])
            };
            on(name, client, &problem, 2);
        }
    });
}

#[test]
fn split_keys_know_no_gates() {
    for (name, client) in launches::clients() {
        let problem = Problem::ragged(DType::F32, [4, 2, 64], &[(1, 1000)]);
        let request = launches::request(&problem, None);
        let splits = |request: &attend::Problem| {
            let elem = launches::elem(DType::F32);
            let plans = attend::candidates(request, elem, client.properties()).expect("plans");
            plans.iter().any(|p| matches!(p.tier, Tier::SplitK(_)))
        };
        assert!(splits(&request), "{name}: a decoding step splits its keys");
        let gated = attend::Problem {
            gated_heads: Some(2),
            ..request
        };
        assert!(!splits(&gated), "{name}: gates were given to split keys");
    }
}
