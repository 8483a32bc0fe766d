//! Windows of keys in every tier of a device against the f64 oracle: dense, over ranges and columns, under
//! a band with dense last rows, with gates, over int8, in ragged batches behind prefixes. Keys past a
//! sequence are NaN, outputs and scratch are prefilled with NaN.
#![cfg(any(feature = "wgpu", feature = "cuda-runtime"))]

use burn::tensor::DType;
use cubecl::{client::Client, features::Plane, ir::AddressType};
use sparse_accelerate::{Triangular, index, index::TileIndex};
use sparse_accelerate_kernels::attend::{self, Plan, Tier};
use sparse_accelerate_tests::{int8_rows, launches, problem::Problem};

/// Keys of a window: its own row alone, less than a step, a whole step, more; and more than any prompt here,
/// but less than its cache.
const WINDOWS: [u32; 5] = [1, 7, 64, 100, 602];

/// A ragged batch in a cache that is longer than every window.
fn problem(dtype: DType, heads: [usize; 3], spans: &[(usize, usize)], window: u32) -> Problem {
    let problem = Problem::ragged(dtype, heads, spans);
    Problem {
        slack: problem.slack.max(608_usize.saturating_sub(problem.keys())),
        window: Some(window),
        ..problem
    }
}

fn each(run: impl Fn(&str, &Client, DType, u32)) {
    launches::each_device(|name, client, dtype| {
        for window in WINDOWS {
            run(name, client, dtype, window);
        }
    });
}

fn named(name: &str, problem: &Problem, plan: &Plan) -> String {
    format!(
        "{name}/{:?}/{:?}/window {:?}/{:?}",
        problem.dtype, problem.spans, problem.window, plan.tier
    )
}

/// Every plan of the device, and the first one without plane operations where it splits keys.
fn on(name: &str, client: &Client, problem: &Problem, index: Option<&TileIndex>, last: usize) {
    let inputs = problem.inputs(5);
    let request = launches::request(problem, index);
    let elem = launches::elem(problem.dtype);
    let mut plans = attend::candidates(&request, elem, client.properties()).expect("plans");
    assert!(plans.iter().all(|plan| windowed(&plan.tier)), "{plans:?}");
    if matches!(plans[0].tier, Tier::SplitK(blueprint) if blueprint.planes) {
        let mut device = client.properties().clone();
        device.features.plane.remove(Plane::Ops);
        plans.push(attend::prepare(&request, elem, &device).expect("plan"));
    }
    for plan in plans {
        let name = named(name, problem, &plan);
        let address = AddressType::U32;
        let run =
            || launches::run_plan(&name, client, &plan, address, problem, &inputs, index, last);
        launches::compare(&name, problem, &inputs, index, &run());
    }
}

fn windowed(tier: &Tier) -> bool {
    match tier {
        Tier::Mma(b) => b.windowed,
        Tier::Cmma(b) => b.windowed,
        Tier::Unit(b) => b.windowed,
        Tier::SplitK(b) => b.windowed,
        _ => false,
    }
}

#[test]
fn dense_prompts_and_chunks() {
    each(|name, client, dtype, window| {
        for spans in [
            &[(200, 200)][..],
            &[(70, 301)],
            &[(130, 300), (3, 80), (64, 64)],
        ] {
            on(
                name,
                client,
                &problem(dtype, [4, 1, 64], spans, window),
                None,
                0,
            );
        }
    });
}

#[test]
fn head_dims_and_groups() {
    each(|name, client, dtype, window| {
        for heads in [[2, 2, 128], [3, 1, 40], [2, 1, 256]] {
            on(
                name,
                client,
                &problem(dtype, heads, &[(70, 250)], window),
                None,
                0,
            );
        }
    });
}

#[test]
fn ranges_and_columns_per_index_head() {
    each(|name, client, dtype, window| {
        for index_heads in [1, 2, 4] {
            let problem = problem(dtype, [4, 2, 64], &[(150, 400), (3, 80)], window);
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
fn blocks_that_the_window_hides() {
    each(|name, client, dtype, window| {
        let problem = problem(dtype, [4, 2, 64], &[(200, 456)], window);
        let keep = |h: usize, q: usize, k: usize| (q * 7 + k * 3 + h).is_multiple_of(3);
        let index = index::block_cluster(&problem.spans, 2, 64, keep).expect("index");
        on(name, client, &problem, Some(&index), 0);
    });
}

#[test]
fn bands_and_dense_last_rows() {
    each(|name, client, dtype, window| {
        let pattern = Triangular {
            sink: 5,
            window: 70,
            last: 9,
        };
        for heads in [[4, 1, 64], [2, 2, 128]] {
            let problem = problem(dtype, heads, &[(200, 330), (3, 80), (64, 64)], window);
            let index = index::triangular(&problem.spans, &pattern).expect("index");
            on(name, client, &problem, Some(&index), pattern.last);
        }
    });
}

#[test]
fn decoding() {
    each(|name, client, dtype, window| {
        for (heads, spans) in [
            ([4, 1, 64], &[(1, 1), (1, 590), (1, 300)][..]),
            ([6, 2, 40], &[(4, 550), (1, 1), (3, 300), (2, 2)]),
            ([2, 2, 128], &[(1, 600)]),
        ] {
            let problem = problem(dtype, heads, spans, window);
            on(name, client, &problem, None, 0);
            let pattern = Triangular {
                sink: 19,
                window: 101,
                last: 3,
            };
            let index = index::triangular(&problem.spans, &pattern).expect("index");
            on(name, client, &problem, Some(&index), pattern.last);
            let columns: Vec<Vec<usize>> = vec![(0..550).step_by(5).collect(); heads[1]];
            let offsets: Vec<Vec<usize>> = vec![vec![0, 90, 400]; heads[1]];
            let index = index::interval_slash(&problem.spans, &columns, &offsets).expect("index");
            on(name, client, &problem, Some(&index), 0);
        }
    });
}

#[test]
fn decoding_over_int8() {
    each(|name, client, dtype, window| {
        let problem = problem(dtype, [4, 2, 64], &[(1, 590), (2, 300)], window);
        let inputs = problem.inputs(11);
        let columns: Vec<Vec<usize>> = vec![(0..550).step_by(5).collect(); 2];
        let offsets: Vec<Vec<usize>> = vec![vec![0, 90, 400]; 2];
        let sparse = index::interval_slash(&problem.spans, &columns, &offsets).expect("index");
        for index in [None, Some(&sparse)] {
            let request = attend::Problem {
                stored: attend::Stored::Int8,
                ..launches::request(&problem, index)
            };
            let elem = launches::elem(dtype);
            let plan = attend::prepare(&request, elem, client.properties()).expect("plan");
            let name = named(name, &problem, &plan);
            let written = launches::run_int8(&name, client, &plan, &problem, &inputs, index, 0);
            let stored = int8_rows::stored(&problem, &inputs);
            launches::compare(&name, &problem, &stored, index, &written);
        }
    });
}

/// A window of the cache's length or more is no window: the kernel is the one without.
#[test]
fn a_window_as_long_as_the_cache_is_causal() {
    for (name, client) in launches::clients() {
        let causal = Problem {
            window: None,
            ..problem(DType::F32, [4, 1, 64], &[(70, 150)], 1)
        };
        let plans = |window: Option<u32>| {
            let problem = Problem {
                window,
                ..causal.clone()
            };
            let request = launches::request(&problem, None);
            let elem = launches::elem(DType::F32);
            attend::candidates(&request, elem, client.properties()).expect("plans")
        };
        let keys = causal.keys() as u32;
        assert_eq!(plans(Some(keys)), plans(None), "{name}");
        assert_eq!(plans(Some(u32::MAX)), plans(None), "{name}");
        assert_ne!(plans(Some(keys - 1)), plans(None), "{name}");
    }
}

/// Splits are counted by the keys that are read, not by the cache.
#[test]
fn a_window_takes_the_splits_of_its_keys() {
    let (_, client) = launches::clients().remove(0);
    let mut device = client.properties().clone();
    device.hardware.num_streaming_multiprocessors = Some(132);
    let splits = |window: Option<u32>| {
        let problem = Problem {
            window,
            ..problem(DType::F32, [32, 8, 128], &[(1, 1 << 17)], 1)
        };
        let request = launches::request(&problem, None);
        let plan = attend::prepare(&request, launches::elem(DType::F32), &device).expect("plan");
        assert!(matches!(plan.tier, Tier::SplitK(_)), "{plan:?}");
        plan.splits
    };
    assert_eq!(splits(None), 49);
    assert_eq!(splits(Some(1000)), 4);
    assert_eq!(splits(Some(7)), 1);
}
