//! The kernels below the extension, launched by hand: outputs are filled with NaN and longer than
//! needed, so a kernel that did not run, skipped a row or wrote past its slice fails.
#![cfg(any(feature = "wgpu", feature = "cuda"))]
#![allow(unsafe_code)]

use burn::{backend::DispatchDevice, tensor::DType};
use cubecl::{
    client::Client,
    ir::{AddressType, ElemType, FloatKind},
    prelude::*,
    server::Handle,
};
use sparse_accelerate::{Span, Triangular, index};
use sparse_accelerate_kernels::{append, attend};
use sparse_accelerate_tests::{backends, oracle, problem::Problem, tolerance};

const F32: ElemType = ElemType::Float(FloatKind::F32);
/// Elements past the end of every output.
const BEYOND: usize = 96;

fn clients() -> Vec<(&'static str, Client)> {
    let cube = |b: backends::Backend| match b.device.as_dispatch() {
        DispatchDevice::Cube(device) => Some((b.name, device.client())),
        #[allow(unreachable_patterns)]
        _ => None,
    };
    backends::with_kernels()
        .into_iter()
        .filter_map(cube)
        .collect()
}

fn upload<T: bytemuck::Pod>(client: &Client, values: &[T]) -> Handle {
    client.create_from_slice(bytemuck::cast_slice(values))
}

fn tensor(handle: &Handle, shape: [usize; 4]) -> TensorArg {
    let strides = [
        shape[1] * shape[2] * shape[3],
        shape[2] * shape[3],
        shape[3],
        1,
    ];
    // SAFETY: the handle holds at least the product of the shape, contiguous in this order.
    unsafe { TensorArg::from_raw_parts(handle.clone(), strides.into(), shape.into()) }
}

fn buffer(handle: &Handle, len: usize) -> BufferArg {
    // SAFETY: the handle holds at least `len` elements.
    unsafe { BufferArg::from_raw_parts(handle.clone(), len) }
}

fn read(client: &Client, handle: Handle) -> Vec<f32> {
    let bytes = client.read_one(handle).expect("the launch failed");
    bytemuck::cast_slice(&bytes).to_vec()
}

fn table(index: Option<&index::TileIndex>, spans: &[Span], last: usize) -> Vec<u32> {
    let mut out: Vec<u32> = spans
        .iter()
        .flat_map(|s| {
            let dense_from = s.prompt_len.saturating_sub(last) as u32;
            [s.query_len as u32, s.kv_len as u32, dense_from, 0]
        })
        .collect();
    if let Some(index) = index {
        let ranges_at = (out.len() + index.row_table().len()) as u32;
        let columns_at = ranges_at + index.range_table().len() as u32;
        for row in index.row_table().chunks_exact(4) {
            out.extend([ranges_at + 2 * row[0], row[1], columns_at + row[2], row[3]]);
        }
        out.extend_from_slice(index.range_table());
        out.extend_from_slice(index.column_table());
    }
    out
}

fn run(problem: &Problem, index: Option<&index::TileIndex>, last: usize) {
    let inputs = problem.inputs(11);
    for (name, client) in clients() {
        let (q, k) = (problem.query_dims(), problem.key_dims());
        let request = attend::Problem {
            batch: q[0],
            heads: q[1],
            kv_heads: k[1],
            rows: q[2],
            head_dim: q[3],
            scale: 1.0 / (q[3] as f32).sqrt(),
            index: index.map(|i| attend::IndexShape {
                heads: i.heads(),
                tiles: i.tiles(),
                band: i.band().map(|b| (b.sink as u32, b.window as u32)),
            }),
        };
        let plan = attend::prepare(&request, F32, client.properties()).expect("plan");
        let (out_len, lse_len) = (q.iter().product::<usize>(), q[0] * q[1] * q[2]);
        let out = upload(&client, &vec![f32::NAN; out_len + BEYOND]);
        let lse = upload(&client, &vec![f32::NAN; lse_len + BEYOND]);
        let rows = table(index, &problem.spans, last);
        let tensors = attend::Tensors {
            query: tensor(&upload(&client, &inputs.query), q),
            key: tensor(&upload(&client, &inputs.key), k),
            value: tensor(&upload(&client, &inputs.value), k),
            table: buffer(&upload(&client, &rows), rows.len()),
            out: tensor(&out, q),
            lse: buffer(&lse, lse_len),
            with_lse: true,
            address: AddressType::U32,
        };
        attend::launch(&client, &request, &plan, F32, tensors);
        let (out, lse) = (read(&client, out), read(&client, lse));

        let group = problem.heads / problem.kv_heads;
        let sees = |b: usize, h: usize, i: usize, j: usize| match index {
            None => j <= problem.spans[b].offset() + i,
            Some(index) => index.sees(b, h / group * index.heads() / problem.kv_heads, i, j),
        };
        let exact = oracle::exact(problem, &inputs, &sees);
        let plain = oracle::plain(problem, &inputs, &sees);
        tolerance::check(name, DType::F32, &out[..out_len], &exact.out, &plain.out);
        tolerance::check(name, DType::F32, &lse[..lse_len], &exact.lse, &plain.lse);
        assert!(
            out[out_len..].iter().all(|x| x.is_nan()),
            "{name}: wrote past the output"
        );
        assert!(
            lse[lse_len..].iter().all(|x| x.is_nan()),
            "{name}: wrote past the log-sum-exp"
        );
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
    for (name, client) in clients() {
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
        let got = read(&client, cache);
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
