//! `calibrate`: prices of the attention kernels on a device, kept for later runs.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use sparse_accelerate_checkpoint::WeightDtype;
use sparse_accelerate_engine::{
    EngineError,
    calibration::{self, BreakEven, Calibration},
    device::{DeviceChoice, select},
};
use sparse_accelerate_eval::speed::{CalibrateSettings, calibrate};

use crate::{
    args::{Dtype, at_least_one, check_heads, lengths},
    calibrate_model,
    output::print_json,
};

const EXAMPLES: &str = "\
Examples:
  sparse-accelerate calibrate
  sparse-accelerate calibrate --device cuda:0 --dtype bf16 --heads 32 --kv-heads 8
  sparse-accelerate calibrate --head-dim 64 --out prices.json
  sparse-accelerate calibrate --model DIR --text book.txt --break-even 1k,4k,8k,16k,32k

Dense attention, random blocks and gathered columns are timed; their prices decide which pattern a head
takes, and from which prompt length `--attention auto` is sparse. The file belongs to one device, element
type, head dimension and number of query heads a KV head; `doctor` lists what is there.

With --model the model itself is timed instead, dense and preset `balanced`, on the start of a text: heads differ from
model to model in how much they keep, and from which length that pays. Later runs of this model on this device go by its
own record, kept beside the prices.";

/// Arguments of `calibrate`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CalibrateArgs {
    /// auto, flex, wgpu[:n], vulkan[:n], metal[:n] or cuda[:n]; `doctor` lists them
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: String,

    /// Element type [default: bf16 where the device computes in it, else f16, else f32]
    #[arg(long, value_name = "TYPE")]
    pub(crate) dtype: Option<Dtype>,

    /// Measure this model, not a layer of some shape
    #[arg(long, value_name = "DIR", requires = "text", conflicts_with_all = ["heads", "kv_heads", "head_dim", "lengths"])]
    model: Option<PathBuf>,

    /// Text whose start is the prompts, repeated where it is too short
    #[arg(long, value_name = "FILE", requires = "model")]
    text: Option<PathBuf>,

    /// Query heads
    #[arg(long, value_name = "N", default_value_t = 32)]
    heads: usize,

    /// KV heads, a divisor of the query heads
    #[arg(long, value_name = "N", default_value_t = 8)]
    kv_heads: usize,

    /// Elements per head, a multiple of 8 from 32 to 256
    #[arg(long, value_name = "N", default_value_t = 128)]
    head_dim: usize,

    /// Prompt lengths that prices come from [default: 4k,8k,16k,32k on a GPU, 512,1k,2k on the CPU]
    #[arg(long, value_name = "N,N...")]
    lengths: Option<String>,

    /// Prompt lengths at which a selection is timed against dense
    /// [default: 1k,2k,4k,8k,16k,32k on a GPU, 1k,2k,4k on the CPU]
    #[arg(long, value_name = "N,N...")]
    break_even: Option<String>,

    /// Timed batches of each measurement; the median counts
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) runs: usize,

    /// Write here instead of the cache directory
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) out: Option<PathBuf>,

    /// Print the measurements as one JSON object on standard output
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

impl CalibrateArgs {
    /// Prompt lengths at which a selection is timed against dense, on the CPU (`flex`) or a GPU.
    pub(crate) fn break_even(&self, flex: bool) -> Result<Vec<usize>> {
        let default = match flex {
            true => "1k,2k,4k",
            false => "1k,2k,4k,8k,16k,32k",
        };
        lengths(
            "--break-even",
            self.break_even.as_deref().unwrap_or(default),
        )
    }
}

/// Runs the command.
pub(crate) fn run(args: &CalibrateArgs) -> Result<()> {
    at_least_one(&[("--runs", args.runs)])?;
    check_heads(args.heads, args.kv_heads)?;
    if let (Some(model), Some(text)) = (&args.model, &args.text) {
        return calibrate_model::run(args, model, text);
    }
    let choice: DeviceChoice = args.device.parse()?;
    let selected = select(choice)?;
    let default = match selected.is_flex() {
        true => "512,1k,2k",
        false => "4k,8k,16k,32k",
    };
    let settings = CalibrateSettings {
        heads: args.heads,
        kv_heads: args.kv_heads,
        head_dim: args.head_dim,
        dtype: match args.dtype {
            Some(dtype) => dtype.into(),
            None => selected.default_dtype(WeightDtype::Bf16),
        },
        runs: args.runs,
        lengths: lengths("--lengths", args.lengths.as_deref().unwrap_or(default))?,
        break_even: args.break_even(selected.is_flex())?,
    };
    eprintln!("device: {} [{}]", selected.reason, settings.dtype);
    let measured = calibrate(&selected, &settings, &mut |line| eprintln!("{line}"))?;
    let path = match &args.out {
        Some(path) => measured.write(path).map(|()| path.clone()),
        None => calibration::save(&measured),
    };
    let path = path.map_err(EngineError::from)?;
    if args.json {
        print_json(&measured)?;
    }
    eprintln!("{}", prices(&measured));
    written(&measured.break_even, &path);
    Ok(())
}

/// Says from which length a selection pays, and where that is kept.
pub(crate) fn written(break_even: &BreakEven, path: &Path) {
    eprintln!("{}", sparse_from(break_even));
    eprintln!("written to {}", path.display());
}

/// Prices in words.
fn prices(measured: &Calibration) -> String {
    let costs = &measured.costs;
    format!(
        "prices: dense tile 1 ({:.3} ns), sparse tile {:.2}, 64 columns {:.2}, index row {:.2}; times \
         within {:.0} %",
        measured.dense_tile_ns,
        costs.tile,
        costs.column,
        costs.row,
        100.0 * measured.misfit
    )
}

/// From which length a selection pays.
pub(crate) fn sparse_from(break_even: &BreakEven) -> String {
    match break_even {
        BreakEven::From { tokens } => format!("sparse from {tokens} tokens"),
        BreakEven::Beyond { longest } => {
            format!("dense was faster up to {longest} tokens; sparse from twice as many")
        }
        BreakEven::Unknown { reason } => format!("break-even length not measured: {reason}"),
    }
}
