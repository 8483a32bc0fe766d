//! Every way a device has to run a problem, not just the one that is chosen, on hostile shapes against
//! the f64 oracle: keys past a sequence are NaN, outputs and scratch are prefilled with NaN.
#![cfg(any(feature = "wgpu", feature = "cuda-runtime"))]

use cubecl::{client::Client, ir::AddressType};
use sparse_accelerate::{Triangular, index, index::TileIndex};
use sparse_accelerate_kernels::attend::{self, Tier};
use sparse_accelerate_tests::{launches, problem::Problem};

/// Products of rows and keys that a portable kernel on a software driver gets done.
const PORTABLE: usize = 1 << 20;
/// Every plan twice: right, and bitwise equal.
fn on(name: &str, client: &Client, problem: &Problem, index: Option<&TileIndex>, last: usize) {
    let inputs = problem.inputs(5);
    let request = launches::request(problem, index);
    let elem = launches::elem(problem.dtype);
    let plans = attend::candidates(&request, elem, client.properties()).expect("plans");
    let heavy = problem.heads * problem.rows() * problem.keys() > PORTABLE;
    let mut ran = 0;
    for plan in plans {
        if heavy && matches!(plan.tier, Tier::Unit(_)) {
            continue;
        }
        ran += 1;
        let name = format!(
            "{name}/{:?}/{:?}/{:?}",
            problem.dtype, problem.spans, plan.tier
        );
        let run = || {
            let address = AddressType::U32;
            launches::run_plan(&name, client, &plan, address, problem, &inputs, index, last)
        };
        let (first, second) = (run(), run());
        launches::compare(&name, problem, &inputs, index, &first);
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(
            bits(&first.out),
            bits(&second.out),
            "{name}: two runs differ"
        );
        assert_eq!(
            bits(&first.lse),
            bits(&second.lse),
            "{name}: two runs differ"
        );
    }
    if ran == 0 {
        println!(
            "skipped {name} {:?}: no tier but the portable one",
            problem.spans
        );
    }
}

#[test]
fn lengths_and_offsets() {
    launches::each_device(|name, client, dtype| {
        for rows in [1, 63, 64, 65, 127] {
            for offset in [0, 1, 100] {
                let problem = Problem::ragged(dtype, [4, 1, 64], &[(rows, rows + offset)]);
                on(name, client, &problem, None, 0);
            }
        }
    });
}

#[test]
fn long_rows_and_long_offsets() {
    launches::each_device(|name, client, dtype| {
        on(
            name,
            client,
            &Problem::ragged(dtype, [1, 1, 64], &[(4097, 4097)]),
            None,
            0,
        );
        on(
            name,
            client,
            &Problem::ragged(dtype, [4, 2, 128], &[(65, 8192 + 65)]),
            None,
            0,
        );
    });
}

#[test]
fn groups_and_head_dims() {
    launches::each_device(|name, client, dtype| {
        for (heads, head_dim) in [(1, 128), (3, 128), (4, 128), (7, 64), (8, 128), (2, 32)] {
            on(
                name,
                client,
                &Problem::ragged(dtype, [heads, 1, head_dim], &[(70, 150)]),
                None,
                0,
            );
        }
        for head_dim in [40, 72, 80, 96, 256] {
            on(
                name,
                client,
                &Problem::ragged(dtype, [2, 1, head_dim], &[(70, 150)]),
                None,
                0,
            );
        }
    });
}

#[test]
fn a_ragged_batch_with_short_sequences() {
    launches::each_device(|name, client, dtype| {
        let spans = [(200, 300), (3, 80), (64, 64)];
        on(
            name,
            client,
            &Problem::ragged(dtype, [6, 2, 64], &spans),
            None,
            0,
        );
        on(
            name,
            client,
            &Problem::ragged(dtype, [4, 1, 128], &spans),
            None,
            0,
        );
    });
}

#[test]
fn bands() {
    launches::each_device(|name, client, dtype| {
        let pattern = Triangular {
            sink: 5,
            window: 70,
            last: 9,
        };
        for heads in [[4, 1, 64], [2, 2, 128], [2, 1, 80]] {
            let problem = Problem::ragged(dtype, heads, &[(200, 330), (3, 80), (64, 64)]);
            let index = index::triangular(&problem.spans, &pattern).expect("index");
            on(name, client, &problem, Some(&index), pattern.last);
        }
    });
}

#[test]
fn ranges_and_columns_per_index_head() {
    launches::each_device(|name, client, dtype| {
        for index_heads in [1, 2, 4] {
            let problem = Problem::ragged(dtype, [4, 2, 128], &[(150, 400), (3, 80)]);
            let columns: Vec<Vec<usize>> = (0..index_heads)
                .map(|h| (0..240).step_by(3 + h).collect())
                .collect();
            let offsets: Vec<Vec<usize>> = (0..index_heads)
                .map(|h| vec![0, 90 + 11 * h, 170])
                .collect();
            let index = index::interval_slash(&problem.spans, &columns, &offsets).expect("index");
            on(name, client, &problem, Some(&index), 0);
        }
    });
}

#[test]
fn large_logits() {
    launches::each_device(|name, client, dtype| {
        let problem = Problem {
            magnitude: 6.0,
            ..Problem::ragged(dtype, [4, 1, 128], &[(100, 200)])
        };
        on(name, client, &problem, None, 0);
    });
}

/// Offsets in 64 bits, which 4 GiB and more need, tested on a small problem.
#[test]
fn wide_addresses() {
    launches::each_device(|name, client, dtype| {
        if !client.properties().supports_address(AddressType::U64) {
            return println!("skipped {name} {dtype:?}: no 64-bit addresses");
        }
        let problem = Problem::ragged(dtype, [4, 1, 128], &[(70, 150), (1, 300)]);
        let inputs = problem.inputs(5);
        let request = launches::request(&problem, None);
        let elem = launches::elem(dtype);
        let plans = attend::candidates(&request, elem, client.properties()).expect("plans");
        for plan in plans {
            let name = format!("{name}/{dtype:?}/{:?}", plan.tier);
            let wide = AddressType::U64;
            let written =
                launches::run_plan(&name, client, &plan, wide, &problem, &inputs, None, 0);
            launches::compare(&name, &problem, &inputs, None, &written);
        }
    });
}
