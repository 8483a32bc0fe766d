//! The kernels below the extension, launched by hand: outputs are filled with NaN and longer than
//! needed, so a kernel that did not run, skipped a row or wrote past its slice fails.
#![cfg(any(feature = "wgpu", feature = "cuda-runtime"))]

use burn::tensor::DType;
use cubecl::ir::{AddressType, ElemType, FloatKind};
use sparse_accelerate::{Span, Triangular, index};
use sparse_accelerate_kernels::{append, glu, rms_norm, rope_append};
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
        let rows = launches::span_table(&spans);
        append::launch(
            &client,
            new_shape,
            F32,
            append::Tensors {
                cache: tensor(&cache, cache_shape),
                new: tensor(&upload(&client, &new), new_shape),
                table: buffer(&upload(&client, &rows), rows.len()),
                scales: None,
                address: AddressType::U32,
            },
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

/// Every element of the output, NaN before the launch, is a number, and none past it is.
fn written(name: &str, got: &[f32], len: usize) {
    assert!(got[..len].iter().all(|x| x.is_finite()), "{name}: a gap");
    assert!(
        got[len..].iter().all(|x| x.is_nan()),
        "{name}: past the end"
    );
}

#[test]
fn norm_and_gate_write_every_row_and_nothing_else() {
    for (name, client) in launches::clients() {
        for (rows, width) in [(1, 1), (3, 63), (5, 576), (2, 4097)] {
            let x: Vec<f32> = (0..rows * 2 * width)
                .map(|i| (i % 7) as f32 - 3.0)
                .collect();
            let out = || upload(&client, &vec![f32::NAN; rows * width + BEYOND]);
            let (normed, gated) = (out(), out());
            rms_norm::launch(
                &client,
                [rows, width],
                width,
                F32,
                1e-5,
                AddressType::U32,
                tensor(&upload(&client, &x), [rows, 1, 1, width]),
                buffer(&upload(&client, &vec![1.0f32; width]), width),
                buffer(&normed, rows * width),
            );
            glu::launch(
                &client,
                glu::Activation::Silu,
                [rows, width],
                2 * width,
                F32,
                AddressType::U32,
                tensor(&upload(&client, &x), [rows, 1, 1, 2 * width]),
                buffer(&gated, rows * width),
            );
            for out in [normed, gated] {
                written(name, &read(&client, out, DType::F32), rows * width);
            }
        }
    }
}

#[test]
fn rope_append_touches_only_its_rows() {
    let (shape, capacity) = (
        rope_append::Shape {
            batch: 2,
            rows: 5,
            heads: 4,
            kv_heads: 2,
            head_dim: 8,
        },
        20,
    );
    let spans: [(usize, usize); 2] = [(5, 12), (2, 2)];
    let table = launches::span_table(&spans);
    // Cosine 1 and sine 0: nothing turns, so that every number can be told from where it came.
    let rotation: Vec<f32> = (0..capacity * 8).map(|i| f32::from(i % 8 < 4)).collect();
    let qkv: Vec<f32> = (0..10 * 64).map(|i| i as f32).collect();
    for (name, client) in launches::clients() {
        let out = |len: usize| upload(&client, &vec![f32::NAN; len + BEYOND]);
        let (query, key, value) = (out(320), out(640), out(640));
        let tensors = rope_append::Tensors {
            qkv: tensor(&upload(&client, &qkv), [10, 1, 1, 64]),
            rotation: tensor(&upload(&client, &rotation), [capacity, 1, 1, 8]),
            table: buffer(&upload(&client, &table), table.len()),
            query: buffer(&query, 320),
            key: tensor(&key, [2, 2, capacity, 8]),
            value: tensor(&value, [2, 2, capacity, 8]),
            scales: None,
            strides: vec![64, 8],
            address: AddressType::U32,
        };
        rope_append::launch(&client, &shape, F32, tensors);
        let query = read(&client, query, DType::F32);
        written(name, &query, 320);
        for (at, x) in query[..320].iter().enumerate() {
            let (row, column) = (at / 32, at % 32);
            let live = row % 5 < spans[row / 5].0;
            let expected = if live { qkv[row * 64 + column] } else { 0.0 };
            assert_eq!(*x, expected, "{name}: query {row}, {column}");
        }
        for (what, cache, first) in [("key", key, 4), ("value", value, 6)] {
            let got = read(&client, cache, DType::F32);
            for (at, x) in got.iter().enumerate() {
                let (b, h, row, d) = (at / 320, at / 160 % 2, at / 8 % capacity, at % 8);
                let span = spans.get(b);
                match span.filter(|&&(q, kv)| (kv - q..kv).contains(&row)) {
                    Some(&(q, kv)) => {
                        let from = (b * 5 + row - (kv - q)) * 64 + (first + h) * 8 + d;
                        assert_eq!(*x, qkv[from], "{name}: {what} at {at}");
                    }
                    None => assert!(x.is_nan(), "{name}: touched the {what} at {at}"),
                }
            }
        }
    }
}
