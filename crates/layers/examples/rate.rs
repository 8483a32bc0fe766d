//! TFLOP/s of linear layers on CUDA: Llama-3.1-8B's at 8,192 rows, and a square one.
//!
//! `rate [--burn] [--dtype bf16|f16|f32] [--rows N] [--device N]`; `--burn` measures Burn's own product
//! beside it. Every product is compared with f64 on a sample before it is timed. A time is the median of
//! 20, each a few products submitted together and waited for once, as a model submits them; the first
//! call, which picks or tunes, stands beside it.

use std::{process::ExitCode, time::Instant};

use burn::tensor::{DType, Device, Distribution, Tensor};
use sparse_accelerate_layers::{diagnostics, linear, route};

/// Name, in, out.
const LAYERS: [(&str, usize, usize); 5] = [
    ("qkv", 4096, 6144),
    ("o", 4096, 4096),
    ("gate+up", 4096, 28672),
    ("down", 14336, 4096),
    ("square", 8192, 8192),
];
const WARM: usize = 3;
const SAMPLES: usize = 20;
/// Products of one sample.
const TOGETHER: usize = 4;
/// Rows and columns of each sampled block.
const BLOCK: usize = 8;

type Failure = Box<dyn std::error::Error>;
type Product = fn(&Tensor<2>, &Tensor<2>) -> Result<Tensor<2>, Failure>;

struct Args {
    burn: bool,
    dtype: DType,
    rows: usize,
    device: usize,
}

fn args() -> Result<Args, Failure> {
    let mut out = Args {
        burn: false,
        dtype: DType::BF16,
        rows: 8192,
        device: 0,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--burn" => out.burn = true,
            "--dtype" => {
                out.dtype = match value()?.as_str() {
                    "bf16" => DType::BF16,
                    "f16" => DType::F16,
                    "f32" => DType::F32,
                    other => Err(format!("--dtype {other} is none of bf16, f16, f32"))?,
                }
            }
            "--rows" => out.rows = value()?.parse::<usize>()?.max(BLOCK),
            "--device" => out.device = value()?.parse()?,
            other => Err(format!("unknown argument {other}"))?,
        }
    }
    Ok(out)
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rate: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let args = args()?;
    let device = Device::cuda(args.device);
    println!("{:?}, route: {}", args.dtype, route(&device, args.dtype));
    println!(
        "| layer | rows, in, out | product | first call | median of {SAMPLES} | spread | TFLOP/s |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let ours: Product = |x, weight| Ok(linear(x.clone(), weight)?);
    let burns: Product = |x, weight| Ok(x.clone().matmul(weight.clone().swap_dims(0, 1)));
    for (name, inputs, outputs) in LAYERS {
        let random = |rows, columns| {
            let shape = [rows, columns];
            Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), (&device, args.dtype))
        };
        let (x, weight) = (random(args.rows, inputs), random(outputs, inputs));
        device.sync()?;
        for (product, measured) in [("linear", ours), ("Burn", burns)] {
            if product == "linear" || args.burn {
                let shape = format!("{}, {inputs}, {outputs}", args.rows);
                let row = measure(&device, &x, &weight, measured)?;
                println!("| {name} | {shape} | {product} | {row} |");
            }
        }
    }
    println!(
        "{} products by cuBLASLt, {} refused by it",
        diagnostics::launches(),
        diagnostics::refused()
    );
    Ok(())
}

fn measure(
    device: &Device,
    x: &Tensor<2>,
    weight: &Tensor<2>,
    product: Product,
) -> Result<String, Failure> {
    let start = Instant::now();
    let first = product(x, weight)?;
    device.sync()?;
    let first_call = start.elapsed();
    check(x, weight, &first)?;
    drop(first);

    let mut seconds = Vec::new();
    for sample in 0..WARM + SAMPLES {
        let start = Instant::now();
        let together: Result<Vec<_>, _> = (0..TOGETHER).map(|_| product(x, weight)).collect();
        device.sync()?;
        let elapsed = start.elapsed().as_secs_f64() / TOGETHER as f64;
        drop(together?);
        if sample >= WARM {
            seconds.push(elapsed);
        }
    }
    seconds.sort_by(f64::total_cmp);
    let (least, median, most) = (seconds[0], seconds[SAMPLES / 2], seconds[SAMPLES - 1]);
    let ([rows, inputs], [outputs, _]) = (x.dims(), weight.dims());
    let operations = 2.0 * (rows * inputs) as f64 * outputs as f64;
    Ok(format!(
        "{:.3} s | {:.3} ms | {:.3} to {:.3} | {:.0}",
        first_call.as_secs_f64(),
        median * 1e3,
        least * 1e3,
        most * 1e3,
        operations / median / 1e12
    ))
}

/// Blocks at the corners and in the middle, against f64.
fn check(x: &Tensor<2>, weight: &Tensor<2>, y: &Tensor<2>) -> Result<(), Failure> {
    let read = |t: Tensor<2>| t.try_into_vec_as::<f32>();
    let ([rows, inputs], [outputs, _]) = (x.dims(), weight.dims());
    let starts = |length: usize| [0, length / 2 - BLOCK / 2, length - BLOCK];
    let (mut wrong, mut norm) = (0f64, 0f64);
    for (r, o) in starts(rows)
        .into_iter()
        .flat_map(|r| starts(outputs).map(|o| (r, o)))
    {
        let xs = read(x.clone().slice([r..r + BLOCK, 0..inputs]))?;
        let ws = read(weight.clone().slice([o..o + BLOCK, 0..inputs]))?;
        let ys = read(y.clone().slice([r..r + BLOCK, o..o + BLOCK]))?;
        for (i, &got) in ys.iter().enumerate() {
            let (a, b) = (i / BLOCK * inputs, i % BLOCK * inputs);
            let terms = xs[a..a + inputs].iter().zip(&ws[b..b + inputs]);
            let exact = terms.fold(0.0, |sum, (&x, &w)| sum + f64::from(x) * f64::from(w));
            wrong += (f64::from(got) - exact).powi(2);
            norm += exact.powi(2);
        }
    }
    let relative = (wrong / norm).sqrt();
    // The output's rounding, and for f32 the sum's.
    let limit = match y.dtype() {
        DType::BF16 => 4e-3,
        DType::F16 => 5e-4,
        _ => 1e-5,
    };
    // Not `>`: NaN must not pass.
    match relative <= limit {
        true => Ok(()),
        false => Err(format!("relative error {relative:e} is over {limit:e}").into()),
    }
}
