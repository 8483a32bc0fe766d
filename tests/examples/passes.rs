//! Norm, gate, and rotation with append: each in one pass, as plain Burn operations, and a copy of as many
//! bytes for the ceiling.
//!
//! `passes [--device flex|wgpu|cuda] [--model llama|smollm2] [--rows N] [--dtype bf16|f16|f32]`. Llama is
//! Llama-3.1-8B, SmolLM2 the 135M one. A time is the median of 20, each a few calls submitted together and
//! waited for once, as a model submits them; GB/s are of the bytes that must move: each input once, each
//! output once. Before it is timed, a pass is compared with the plain operations on its first and last rows.
//!
//! On the CPU, glibc gives the memory of a lone result back to the system at every call, as it does not
//! inside a model: set `MALLOC_TRIM_THRESHOLD_` and `MALLOC_MMAP_THRESHOLD_` to 1000000000 there.

use std::{process::ExitCode, time::Instant};

use burn::tensor::{DType, Device, Distribution, Tensor, activation::silu};
use rayon::prelude::*;
use sparse_accelerate::{
    AttentionPlan, AttentionSettings, CacheShape, Heads, KvCache, Span, Visible, rotation_table,
};
use sparse_accelerate_layers::{rms_norm, swiglu};

const WARM: usize = 5;
const SAMPLES: usize = 20;
/// Calls of one sample.
const TOGETHER: usize = 8;
const EPS: f64 = 1e-5;
/// Rows compared at either end.
const COMPARED: usize = 4;

type Failure = Box<dyn std::error::Error>;

/// Sizes of a model that the three passes use.
#[derive(Clone, Copy)]
struct Model {
    hidden: usize,
    intermediate: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

const LLAMA: Model = Model {
    hidden: 4096,
    intermediate: 14336,
    heads: 32,
    kv_heads: 8,
    head_dim: 128,
};
const SMOLLM2: Model = Model {
    hidden: 576,
    intermediate: 1536,
    heads: 9,
    kv_heads: 3,
    head_dim: 64,
};

struct Args {
    device: String,
    model: Model,
    rows: usize,
    dtype: DType,
}

fn args() -> Result<Args, Failure> {
    let mut out = Args {
        device: "flex".to_owned(),
        model: LLAMA,
        rows: 8192,
        dtype: DType::BF16,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--device" => out.device = value()?,
            "--rows" => out.rows = value()?.parse::<usize>()?.max(COMPARED),
            "--model" => {
                out.model = match value()?.as_str() {
                    "llama" => LLAMA,
                    "smollm2" => SMOLLM2,
                    other => Err(format!("--model {other} is none of llama, smollm2"))?,
                }
            }
            "--dtype" => {
                out.dtype = match value()?.as_str() {
                    "bf16" => DType::BF16,
                    "f16" => DType::F16,
                    "f32" => DType::F32,
                    other => Err(format!("--dtype {other} is none of bf16, f16, f32"))?,
                }
            }
            other => Err(format!(
                "unknown argument {other}; there are --device, --model, --rows, --dtype"
            ))?,
        }
    }
    Ok(out)
}

fn device(name: &str) -> Result<Device, Failure> {
    match name {
        #[cfg(feature = "flex")]
        "flex" => Ok(Device::flex()),
        #[cfg(feature = "wgpu")]
        "wgpu" => Ok(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "cuda-runtime")]
        "cuda" => Ok(Device::cuda(0)),
        other => Err(format!(
            "this build has no device {other}; build with its feature: flex, wgpu or cuda"
        ))?,
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("passes: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let args = args()?;
    let device = device(&args.device)?;
    println!("{}, {} rows, {:?}", args.device, args.rows, args.dtype);
    println!("| pass | how | median of {SAMPLES} | spread | GB/s |");
    println!("| --- | --- | --- | --- | --- |");
    norm(&args, &device)?;
    gate(&args, &device)?;
    rope(&args, &device)
}

fn random(shape: [usize; 2], device: &Device, dtype: DType) -> Tensor<2> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), (device, dtype))
}

fn norm(args: &Args, device: &Device) -> Result<(), Failure> {
    let shape = [args.rows, args.model.hidden];
    let x = random(shape, device, args.dtype);
    let gamma = Tensor::<1>::random(
        [args.model.hidden],
        Distribution::Uniform(0.5, 1.5),
        (device, DType::F32),
    );
    let plain = || {
        let x = x.clone().cast(DType::F32);
        let mean_square = (x.clone() * x.clone()).mean_dim(1);
        let scale = (mean_square + EPS).sqrt().recip();
        Ok((x * scale * gamma.clone().unsqueeze()).cast(args.dtype))
    };
    let pass = || Ok(rms_norm(x.clone(), &gamma, EPS)?);
    agree("norm", pass()?, plain()?)?;
    let bytes = 2 * shape[0] * shape[1] * args.dtype.size();
    report("RMSNorm", args, device, bytes, plain, pass)
}

fn gate(args: &Args, device: &Device) -> Result<(), Failure> {
    let width = args.model.intermediate;
    let gate_up = random([args.rows, 2 * width], device, args.dtype);
    let plain = || {
        let gate = gate_up.clone().slice_dim(1, 0..width);
        let up = gate_up.clone().slice_dim(1, width..2 * width);
        Ok(silu(gate) * up)
    };
    let pass = || Ok(swiglu(gate_up.clone())?);
    agree("gate", pass()?, plain()?)?;
    let bytes = 3 * args.rows * width * args.dtype.size();
    report("SwiGLU", args, device, bytes, plain, pass)
}

fn rope(args: &Args, device: &Device) -> Result<(), Failure> {
    let (rows, model) = (args.rows, args.model);
    let (d, turned) = (model.head_dim, model.heads + model.kv_heads);
    let all = turned + model.kv_heads;
    let qkv = random([rows, all * d], device, args.dtype);
    let frequencies: Vec<f64> = (0..d / 2)
        .map(|i| 5e5f64.powf(-2.0 * i as f64 / d as f64))
        .collect();
    let table = rotation_table(&frequencies, rows, device);
    let heads = Heads::new(model.heads, model.kv_heads, d);
    let spans = [Span::whole(rows)];
    let dense = AttentionSettings::dense();
    let plan = AttentionPlan::new(&dense, &spans, heads, Visible::Causal, device)?;
    let shape = CacheShape {
        layers: 1,
        batch: 1,
        kv_heads: model.kv_heads,
        capacity: rows,
        head_dim: d,
    };
    let new_cache = || KvCache::new(&shape, args.dtype, device);

    // As the models had it: rotate query and key together, then append twice.
    let angles = |from: usize| {
        let half = table.clone().slice_dim(1, from..from + d / 2);
        half.unsqueeze_dims::<4>(&[0, 2])
    };
    let (cos, sin) = (angles(0), angles(d / 2));
    let rotate = |x: Tensor<4>| {
        let x = x.cast(DType::F32);
        let first = x.clone().slice_dim(3, 0..d / 2);
        let second = x.slice_dim(3, d / 2..d);
        let turned_first = first.clone() * cos.clone() - second.clone() * sin.clone();
        let turned_second = second * cos.clone() + first * sin.clone();
        Tensor::cat(vec![turned_first, turned_second], 3).cast(args.dtype)
    };
    // The same chunk is appended again and again.
    let plain_into = |cache: &mut KvCache| -> Result<Tensor<4>, Failure> {
        cache.clear();
        let qkv = qkv.clone().reshape([1, rows, all, d]);
        let value = qkv.clone().slice_dim(2, turned..all);
        let query_key = rotate(qkv.slice_dim(2, 0..turned));
        let query = query_key.clone().slice_dim(2, 0..model.heads);
        let key = query_key.slice_dim(2, model.heads..turned);
        let (key, value) = (key.swap_dims(1, 2), value.swap_dims(1, 2));
        cache.append(0, key, value, &plan)?;
        Ok(query.swap_dims(1, 2))
    };
    let pass_into = |cache: &mut KvCache| -> Result<Tensor<4>, Failure> {
        cache.clear();
        Ok(cache.append_rotated(0, qkv.clone(), &table, &plan)?)
    };
    let (mut plain_cache, mut pass_cache) = (new_cache()?, new_cache()?);
    let flat = |x: Tensor<4>| {
        let [_, heads, rows, d] = x.dims();
        x.swap_dims(1, 2).reshape([rows, heads * d])
    };
    let queries = (pass_into(&mut pass_cache)?, plain_into(&mut plain_cache)?);
    agree("query", flat(queries.0), flat(queries.1))?;
    for of in [KvCache::key, KvCache::value] {
        let [pass, plain] = [of(&pass_cache, 0)?, of(&plain_cache, 0)?].map(flat);
        agree("cache", pass, plain)?;
    }
    device.sync()?;
    let bytes = 2 * rows * all * d * args.dtype.size() + rows * d * size_of::<f32>();
    let plain = || plain_into(&mut plain_cache);
    let pass = || pass_into(&mut pass_cache);
    report("RoPE + append", args, device, bytes, plain, pass)
}

/// The largest difference is within a few roundings.
fn agree(what: &str, pass: Tensor<2>, plain: Tensor<2>) -> Result<(), Failure> {
    let ([rows, width], dtype) = (pass.dims(), pass.dtype());
    let limit = match dtype {
        DType::BF16 => 0.03,
        DType::F16 => 0.004,
        _ => 1e-5,
    };
    for start in [0, rows - COMPARED] {
        let part = |x: &Tensor<2>| x.clone().slice([start..start + COMPARED, 0..width]);
        let (pass, plain) = (part(&pass), part(&plain));
        let pass = pass.try_into_vec_as::<f32>()?;
        let plain = plain.try_into_vec_as::<f32>()?;
        for (a, b) in pass.iter().zip(&plain) {
            // Not `>`: NaN must not pass.
            let close = (a - b).abs() <= limit * (1.0 + b.abs());
            if !close {
                Err(format!("{what}: {a} in one pass, {b} by plain operations"))?;
            }
        }
    }
    Ok(())
}

fn report<const A: usize, const B: usize>(
    name: &str,
    args: &Args,
    device: &Device,
    bytes: usize,
    plain: impl FnMut() -> Result<Tensor<A>, Failure>,
    pass: impl FnMut() -> Result<Tensor<B>, Failure>,
) -> Result<(), Failure> {
    let row = |how: &str, [least, median, most]: [f64; 3]| {
        let rate = bytes as f64 / median / 1e9;
        let (median, least, most) = (median * 1e3, least * 1e3, most * 1e3);
        println!("| {name} | {how} | {median:.3} ms | {least:.3} to {most:.3} | {rate:.0} |");
    };
    row("plain", measure(args, device, plain)?);
    row("one pass", measure(args, device, pass)?);
    row("copy", copy(args, device, bytes)?);
    Ok(())
}

/// A copy that reads half of `bytes` and writes the other.
fn copy(args: &Args, device: &Device, bytes: usize) -> Result<[f64; 3], Failure> {
    if args.device == "flex" {
        let from = vec![1u8; bytes / 2];
        let mut to = vec![0u8; bytes / 2];
        return measure(args, device, || {
            let parts = to.par_chunks_mut(1 << 18).zip(from.par_chunks(1 << 18));
            parts.for_each(|(to, from)| to.copy_from_slice(from));
            Ok(std::hint::black_box(&mut to)[0])
        });
    }
    let columns = args.model.hidden;
    let rows = bytes / 2 / args.dtype.size() / columns;
    let x = random([rows, columns], device, args.dtype);
    measure(args, device, || Ok(x.clone() + 1.0))
}

/// Least, median and most seconds of a call.
fn measure<T>(
    args: &Args,
    device: &Device,
    mut call: impl FnMut() -> Result<T, Failure>,
) -> Result<[f64; 3], Failure> {
    // A lazy backend need not make what nobody holds; the CPU has made it, and reuses its memory.
    let held = if args.device == "flex" { 0 } else { TOGETHER };
    let mut seconds = Vec::new();
    for sample in 0..WARM + SAMPLES {
        device.sync()?;
        let mut together = Vec::with_capacity(TOGETHER);
        let start = Instant::now();
        for _ in 0..TOGETHER {
            together.push(call()?);
            together.truncate(held);
        }
        device.sync()?;
        let elapsed = start.elapsed().as_secs_f64() / TOGETHER as f64;
        drop(together);
        if sample >= WARM {
            seconds.push(elapsed);
        }
    }
    seconds.sort_by(f64::total_cmp);
    Ok([seconds[0], seconds[SAMPLES / 2], seconds[SAMPLES - 1]])
}
