//! `bench kernel`: attention of one layer through the library's public `attend`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::{Map, json};
use sparse_accelerate_checkpoint::WeightDtype;
use sparse_accelerate_engine::{
    attention::{NamedAttention, parse_attentions},
    device::{DeviceChoice, select},
};
use sparse_accelerate_eval::speed::{
    Case, ForcedDensity, KernelSettings, KernelShape, SpeedError, kernel,
};
use sparse_accelerate_report::{record::Line, show};

use super::output::{Output, OutputArgs};
use crate::{
    args::{Dtype, at_least_one, check_heads, lengths},
    exit::usage,
    run_file::About,
};

const EXAMPLES: &str = "\
Examples:
  sparse-accelerate bench kernel --lengths 8k,32k
  sparse-accelerate bench kernel --heads 28 --kv-heads 4 --lengths 32k,128k \\
      --attention triangular,triangular:window=4096 --density 0.05 --out kernel.jsonl

Rows are compared with f64 attention before they are timed; one that is wrong is refused, and the exit
code is 1. Times are wall clock around synchronised calls, without the time to build an index.";

/// Arguments of `bench kernel`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct KernelArgs {
    /// auto, flex, wgpu[:n], vulkan[:n], metal[:n] or cuda[:n]; `doctor` lists them
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: String,

    /// Element type [default: bf16 where the device computes in it, else f16, else f32]
    #[arg(long, value_name = "TYPE")]
    dtype: Option<Dtype>,

    /// Prompt lengths in tokens; k is 1024
    #[arg(long, value_name = "N,N...", default_value = "2k,8k")]
    lengths: String,

    /// Query heads
    #[arg(long, value_name = "N", default_value_t = 32)]
    heads: usize,

    /// KV heads, a divisor of the query heads
    #[arg(long, value_name = "N", default_value_t = 8)]
    kv_heads: usize,

    /// Elements per head, a multiple of 8 from 32 to 256
    #[arg(long, value_name = "N", default_value_t = 128)]
    head_dim: usize,

    /// Attentions beside dense: auto, sparse, triangular[:sink=N][:window=N][:last=N]
    #[arg(long, value_name = "A,A...", default_value = "triangular")]
    attention: String,

    /// Random blocks of keys of this density too, one for all lengths or one for each: 8k=0.54
    #[arg(long, value_name = "X|N=X,...")]
    density: Option<String>,

    /// Tokens of those blocks, a multiple of 64
    #[arg(long, value_name = "N", default_value_t = 128, requires = "density")]
    block: usize,

    /// Timed batches of each row; the median counts
    #[arg(long, value_name = "N", default_value_t = 10)]
    runs: usize,

    /// Seed of the inputs and of the blocks
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    #[command(flatten)]
    output: OutputArgs,
}

/// Runs the command.
pub(crate) fn run(args: &KernelArgs) -> Result<ExitCode> {
    at_least_one(&[("--runs", args.runs)])?;
    check_heads(args.heads, args.kv_heads)?;
    let lengths = lengths("--lengths", &args.lengths)?;
    let named = parse_attentions(&args.attention)?;
    let chooses = |named: &&NamedAttention| named.settings.selects();
    if let Some(named) = named.iter().find(chooses) {
        return Err(usage(format!(
            "attention `{}` is for keys that are chosen from the input, and this input is noise, of which there \
             is nothing to choose; time it with `bench ttft --model DIR --text FILE`, or impose its density \
             with --density",
            named.name
        )));
    }
    let cases: Vec<Case> = named
        .into_iter()
        .map(Case::from)
        .filter(|case| !case.is_dense())
        .collect();
    let density = args.density.as_ref();
    let forced = density.map(|text| ForcedDensity::parse(text, args.block, args.seed));
    let forced = forced.transpose()?;
    let choice: DeviceChoice = args.device.parse()?;
    let selected = select(choice)?;
    let dtype = match args.dtype {
        Some(dtype) => dtype.into(),
        None => selected.default_dtype(WeightDtype::Bf16),
    };
    let mut settings = Map::new();
    settings.insert("runs".into(), json!(args.runs));
    settings.insert("density".into(), json!(args.density));
    settings.insert("block".into(), json!(args.block));
    let about = About {
        command: "bench kernel".into(),
        seed: args.seed,
        model: None,
        device: selected.reason.clone(),
        dtype: dtype.to_string(),
        chunk: 0,
        settings,
    };
    let mut output = Output::new(&args.output, about)?;
    eprintln!("device: {}", selected.reason);

    let mut wrong = false;
    for length in lengths {
        let mut wanted = vec![Case::dense()];
        wanted.extend(
            forced
                .as_ref()
                .and_then(|forced| forced.attention(length, args.kv_heads)),
        );
        wanted.extend(cases.iter().cloned());
        let shape = KernelShape {
            heads: args.heads,
            kv_heads: args.kv_heads,
            head_dim: args.head_dim,
            length,
        };
        let kernel_settings = KernelSettings {
            dtype,
            runs: args.runs,
            seed: args.seed,
        };
        for case in &wanted {
            let done = |row: &Line| {
                matches!(row, Line::Kernel(row) if row.length == length
                    && row.attention == case.name
                    && (row.heads, row.kv_heads, row.head_dim)
                        == (shape.heads, shape.kv_heads, shape.head_dim))
            };
            if output.has(done) {
                continue;
            }
            let what = format!("{} at {} tokens", case.name, show::tokens(length));
            match kernel(&selected.device, shape, case, kernel_settings) {
                Ok(row) => {
                    let (ms, rate) = (show::number(row.median_ms), show::number(row.tflops));
                    eprintln!("{what}: {ms} ms, {rate} TFLOP/s");
                    output.push(Line::Kernel(row))?;
                }
                Err(error) => {
                    wrong |= matches!(error, SpeedError::Wrong { .. });
                    output.skip(what, error)?;
                }
            }
        }
    }
    let code = output.finish(None)?;
    Ok(if wrong { ExitCode::FAILURE } else { code })
}
