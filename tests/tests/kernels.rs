//! The kernels below the extension, launched by hand: outputs are filled with NaN and longer than
//! needed, so a kernel that did not run, skipped a row or wrote past its slice fails.
#![cfg(any(feature = "wgpu", feature = "cuda-runtime"))]

use burn::tensor::DType;
use cubecl::ir::{AddressType, ElemType, FloatKind};
use sparse_accelerate::{Span, Triangular, index};
use sparse_accelerate_kernels::append;
use sparse_accelerate_tests::{
    launches::{self, BEYOND, buffer, read, tensor, upload},
    problem::Problem,
};

const F32: ElemType = ElemType::Float(FloatKind::F32);

fn run(problem: &Problem, index: Option<&index::TileIndex>, last: usize) {
    for (name, client) in launches::clients() {
        launches::check(name, &client, problem, index, last);
    }
}

fn batch(head_dim: usize) -> Problem {
    let span = |query_len, kv_len| Span {
        query_len,
        kv_len,
        prompt_len: kv_len,
    };
    Problem {
        spans: vec![span(75, 100), span(3, 80), span(64, 64)],
        slack: 3,
        ..Problem::whole(DType::F32, [6, 2, head_dim], 1)
    }
}

#[test]
fn dense_writes_every_row_and_nothing_else() {
    for head_dim in [32, 72] {
        run(&batch(head_dim), None, 0);
    }
}

#[test]
fn triangular_writes_every_row_and_nothing_else() {
    let problem = batch(40);
    let pattern = Triangular {
        sink: 3,
        window: 20,
        last: 5,
    };
    let index = index::triangular(&problem.spans, &pattern).expect("index");
    run(&problem, Some(&index), pattern.last);
}

#[test]
fn columns_write_every_row_and_nothing_else() {
    let problem = batch(32);
    let columns = vec![vec![0, 5, 9, 41], vec![1, 2, 3]];
    let index = index::interval_slash(&problem.spans, &columns, &[vec![0, 33], vec![17]]);
    run(&problem, Some(&index.expect("index")), 0);
}

#[test]
fn append_touches_only_its_rows() {
    for (name, client) in launches::clients() {
        let (new_shape, cache_shape) = ([2, 3, 5, 8], [2, 3, 20, 8]);
        let spans: [(usize, usize); 2] = [(5, 12), (2, 2)];
        let new: Vec<f32> = (0..240).map(|i| i as f32).collect();
        let cache = upload(&client, &vec![f32::NAN; 960 + BEYOND]);
        let rows: Vec<u32> = spans
            .iter()
            .flat_map(|&(q, kv)| [q as u32, kv as u32, 0, 0])
            .collect();
        append::launch(
            &client,
            new_shape,
            F32,
            AddressType::U32,
            tensor(&cache, cache_shape),
            tensor(&upload(&client, &new), new_shape),
            buffer(&upload(&client, &rows), rows.len()),
        );
        let got = read(&client, cache, DType::F32);
        for (at, x) in got.iter().enumerate() {
            let (b, h, row, d) = (at / 480, at / 160 % 3, at / 8 % 20, at % 8);
            let written = spans
                .get(b)
                .and_then(|&(q, kv)| (kv - q..kv).contains(&row).then(|| row - (kv - q)));
            match written {
                Some(i) => assert_eq!(*x, new[((b * 3 + h) * 5 + i) * 8 + d], "{name} at {at}"),
                None => assert!(x.is_nan(), "{name}: touched {at}"),
            }
        }
    }
}
