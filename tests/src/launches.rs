//! Kernels launched by hand: outputs and scratch are filled with NaN and longer than needed, so a kernel
//! that did not run, skipped a row, wrote past its slice or read scratch it did not write fails.
#![allow(unsafe_code)]

use burn::{backend::DispatchDevice, tensor::DType};
use cubecl::{
    client::Client,
    ir::{AddressType, DeviceProperties, ElemType, FloatKind},
    prelude::*,
    server::Handle,
};
use half::{bf16, f16};
use sparse_accelerate::{Span, index::TileIndex};
use sparse_accelerate_contract::{Sequence, table};
use sparse_accelerate_kernels::attend;

use crate::{
    backends, int8_rows, oracle,
    problem::{Inputs, Problem},
    tolerance,
};

/// Elements past the end of every output.
pub const BEYOND: usize = 96;

/// A client of every backend that runs kernels.
pub fn clients() -> Vec<(&'static str, Client)> {
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

/// Element types of the backend with this name; empty if the build has none.
pub fn dtypes(name: &str) -> Vec<DType> {
    let of = |b: backends::Backend| (b.name == name).then_some(b.dtypes);
    let found = backends::with_kernels().into_iter().find_map(of);
    found.unwrap_or_default()
}

/// Calls `run` with name and client of every backend that runs kernels, once for each of its element types.
pub fn each_device(run: impl Fn(&str, &Client, DType)) {
    for (name, client) in clients() {
        for dtype in dtypes(name) {
            run(name, &client, dtype);
        }
    }
}

/// Copies values to the device.
pub fn upload<T: bytemuck::Pod>(client: &Client, values: &[T]) -> Handle {
    client.create_from_slice(bytemuck::cast_slice(values))
}

/// Copies values to the device in an element type.
pub fn upload_as(client: &Client, values: &[f32], dtype: DType) -> Handle {
    match dtype {
        DType::F16 => upload(
            client,
            &values.iter().map(|x| f16::from_f32(*x)).collect::<Vec<_>>(),
        ),
        DType::BF16 => upload(
            client,
            &values
                .iter()
                .map(|x| bf16::from_f32(*x))
                .collect::<Vec<_>>(),
        ),
        _ => upload(client, values),
    }
}

/// A contiguous tensor over a buffer that holds it.
pub fn tensor(handle: &Handle, shape: [usize; 4]) -> TensorArg {
    let strides = [
        shape[1] * shape[2] * shape[3],
        shape[2] * shape[3],
        shape[3],
        1,
    ];
    // SAFETY: the handle holds at least the product of the shape, contiguous in this order.
    unsafe { TensorArg::from_raw_parts(handle.clone(), strides.into(), shape.into()) }
}

/// The first `len` elements of a buffer.
pub fn buffer(handle: &Handle, len: usize) -> BufferArg {
    // SAFETY: the handle holds at least `len` elements.
    unsafe { BufferArg::from_raw_parts(handle.clone(), len) }
}

/// Reads a buffer of an element type.
///
/// # Panics
/// If a launch that wrote it failed.
pub fn read(client: &Client, handle: Handle, dtype: DType) -> Vec<f32> {
    let bytes = client.read_one(handle).expect("the launch failed");
    match dtype {
        DType::F16 => bytemuck::cast_slice::<_, f16>(&bytes)
            .iter()
            .map(|x| x.to_f32())
            .collect(),
        DType::BF16 => bytemuck::cast_slice::<_, bf16>(&bytes)
            .iter()
            .map(|x| x.to_f32())
            .collect(),
        _ => bytemuck::cast_slice(&bytes).to_vec(),
    }
}

/// The device table of sequences given by new rows and keys, without an index.
pub fn span_table(lengths: &[(usize, usize)]) -> Vec<u32> {
    table::spans(
        lengths
            .iter()
            .map(|&(rows, keys)| Sequence::new(rows, keys)),
    )
}

/// The device table of spans and index; `last` as in the index's band.
pub fn table(index: Option<&TileIndex>, spans: &[Span], last: usize) -> Vec<u32> {
    gated_table(index, spans, last, &[])
}

/// [`table()`] with gates of every sequence and index head.
pub fn gated_table(
    index: Option<&TileIndex>,
    spans: &[Span],
    last: usize,
    gates: &[u32],
) -> Vec<u32> {
    let sequences = spans.iter().map(|s| {
        Sequence::new(s.query_len, s.kv_len).dense_from(s.prompt_len.saturating_sub(last))
    });
    match index {
        Some(index) => table::write(sequences, index.packed(), gates),
        None => table::spans(sequences),
    }
}

/// Returns the kernels' form of a problem.
pub fn request(problem: &Problem, index: Option<&TileIndex>) -> attend::Problem {
    let (q, k) = (problem.query_dims(), problem.key_dims());
    attend::Problem {
        batch: q[0],
        heads: q[1],
        kv_heads: k[1],
        rows: q[2],
        keys: k[2],
        head_dim: q[3],
        scale: 1.0 / (q[3] as f32).sqrt(),
        index: index.map(|i| attend::IndexShape {
            heads: i.heads(),
            tiles: i.tiles(),
            tile_tokens: attend::QUERY_TILE,
            columns: !i.column_table().is_empty(),
            band: i.band().map(|b| (b.sink as u32, b.window as u32)),
        }),
        gated_heads: None,
        stored: attend::Stored::Elements,
        visible: match problem.window {
            None => attend::Visible::Causal,
            Some(keys) => attend::Visible::Window(keys.try_into().expect("a window of keys")),
        },
    }
}

/// Output of a launch, with its plan.
#[derive(Debug)]
pub struct Written {
    /// The plan.
    pub plan: attend::Plan,
    /// `[B, Hq, N, d]`.
    pub out: Vec<f32>,
    /// `[B, Hq, N]`.
    pub lse: Vec<f32>,
}

/// Runs a problem under the plan for a device of the given properties; `last` as in the index's band.
///
/// # Panics
/// If it is refused, or writes past its outputs.
pub fn run(
    name: &str,
    client: &Client,
    device: &DeviceProperties,
    problem: &Problem,
    inputs: &Inputs,
    index: Option<&TileIndex>,
    last: usize,
) -> Written {
    let plan =
        attend::prepare(&request(problem, index), elem(problem.dtype), device).expect("plan");
    run_plan(
        name,
        client,
        &plan,
        AddressType::U32,
        problem,
        inputs,
        index,
        last,
    )
}

/// The kernels' name of an element type.
pub fn elem(dtype: DType) -> ElemType {
    ElemType::Float(match dtype {
        DType::F16 => FloatKind::F16,
        DType::BF16 => FloatKind::BF16,
        _ => FloatKind::F32,
    })
}

/// [`run`] under a given plan, with addresses of a given width.
///
/// # Panics
/// If it writes past its outputs.
#[allow(clippy::too_many_arguments)]
pub fn run_plan(
    name: &str,
    client: &Client,
    plan: &attend::Plan,
    address: AddressType,
    problem: &Problem,
    inputs: &Inputs,
    index: Option<&TileIndex>,
    last: usize,
) -> Written {
    let (k, dtype) = (problem.key_dims(), problem.dtype);
    let cache = |values| tensor(&upload_as(client, values, dtype), k);
    let cache = (cache(&inputs.key), cache(&inputs.value), None);
    run_over(
        name, client, plan, address, problem, inputs, cache, index, last,
    )
}

/// [`run_plan`] over int8 keys and values; rows past a sequence have scale NaN.
///
/// # Panics
/// If it writes past its outputs.
pub fn run_int8(
    name: &str,
    client: &Client,
    plan: &attend::Plan,
    problem: &Problem,
    inputs: &Inputs,
    index: Option<&TileIndex>,
    last: usize,
) -> Written {
    let [batch, heads, capacity, d] = problem.key_dims();
    let (key, key_scales) = int8_rows::quantize(&inputs.key, d);
    let (value, value_scales) = int8_rows::quantize(&inputs.value, d);
    let scales = int8_rows::interleave(&key_scales, &value_scales, capacity);
    let words = |x: &[u32]| tensor(&upload(client, x), [batch, heads, capacity, d / 4]);
    let scales = tensor(&upload(client, &scales), [batch, heads, 2, capacity]);
    let cache = (words(&key), words(&value), Some(scales));
    let address = AddressType::U32;
    run_over(
        name, client, plan, address, problem, inputs, cache, index, last,
    )
}

#[allow(clippy::too_many_arguments)]
fn run_over(
    name: &str,
    client: &Client,
    plan: &attend::Plan,
    address: AddressType,
    problem: &Problem,
    inputs: &Inputs,
    (key, value, scales): (TensorArg, TensorArg, Option<TensorArg>),
    index: Option<&TileIndex>,
    last: usize,
) -> Written {
    let (q, dtype) = (problem.query_dims(), problem.dtype);
    let mut request = request(problem, index);
    if scales.is_some() {
        request.stored = attend::Stored::Int8;
    }
    let nan = |len| vec![f32::NAN; len + BEYOND];
    let (out_len, lse_len) = (q.iter().product::<usize>(), q[0] * q[1] * q[2]);
    let out = upload_as(client, &nan(out_len), dtype);
    let lse = upload(client, &nan(lse_len));
    let scratch = (plan.scratch > 0).then(|| upload(client, &nan(plan.scratch)));
    let rows = table(index, &problem.spans, last);
    let tensors = attend::Tensors {
        query: tensor(&upload_as(client, &inputs.query, dtype), q),
        key,
        value,
        scales,
        table: buffer(&upload(client, &rows), rows.len()),
        out: tensor(&out, q),
        lse: buffer(&lse, lse_len),
        with_lse: true,
        scratch: scratch.clone(),
        address,
    };
    attend::launch(client, &request, plan, elem(dtype), tensors);
    let within = |what: &str, handle, dtype, len| {
        let mut values = read(client, handle, dtype);
        let beyond = values.split_off(len);
        let clean = beyond.iter().all(|x| x.is_nan());
        assert!(clean, "{name}: wrote past the {what}");
        values
    };
    if let Some(scratch) = scratch {
        within("scratch", scratch, DType::F32, plan.scratch);
    }
    Written {
        plan: *plan,
        out: within("output", out, dtype, out_len),
        lse: within("log-sum-exp", lse, DType::F32, lse_len),
    }
}

/// [`run`] with the device's own properties, against the oracle.
///
/// # Panics
/// If anything is off.
pub fn check(
    name: &str,
    client: &Client,
    problem: &Problem,
    index: Option<&TileIndex>,
    last: usize,
) -> Written {
    let inputs = problem.inputs(11);
    let name = format!(
        "{name}/{:?}/{:?}/{:?}",
        problem.dtype,
        problem.query_dims(),
        problem.key_dims()
    );
    let written = run(
        &name,
        client,
        client.properties(),
        problem,
        &inputs,
        index,
        last,
    );
    compare(&name, problem, &inputs, index, &written);
    written
}

/// Compares with the oracle.
///
/// # Panics
/// With the first entry that is off.
pub fn compare(
    name: &str,
    problem: &Problem,
    inputs: &Inputs,
    index: Option<&TileIndex>,
    written: &Written,
) {
    let group = problem.heads / problem.kv_heads;
    let allowed = |b: usize, h: usize, i: usize, j: usize| match index {
        None => j <= problem.spans[b].offset() + i,
        Some(index) if index.heads() == problem.heads => index.sees(b, h, i, j),
        Some(index) => index.sees(b, h / group * index.heads() / problem.kv_heads, i, j),
    };
    let sees =
        |b: usize, h: usize, i: usize, j: usize| problem.in_window(b, i, j) && allowed(b, h, i, j);
    let exact = oracle::exact(problem, inputs, &sees);
    let plain = oracle::plain(problem, inputs, &sees);
    let dtype = problem.dtype;
    tolerance::check(name, dtype, &written.out, &exact.out, &plain.out);
    tolerance::check(name, dtype, &written.lse, &exact.lse, &plain.lse);
}
