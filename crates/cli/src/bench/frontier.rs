//! `bench frontier`: error against density and time, selections beside an oracle.

#[path = "frontier_layers.rs"]
mod layers;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::{Map, json};
use sparse_accelerate::select::Prices;
use sparse_accelerate_checkpoint::WeightDtype;
use sparse_accelerate_engine::{
    Selected,
    attention::baselines,
    device::{DeviceChoice, select},
};
use sparse_accelerate_eval::speed::{
    Family, Frontier, FrontierSettings, FrontierShape, SHARES, Selector, SpeedError,
    parse_selectors,
};
use sparse_accelerate_report::{
    record::{FrontierRow, Line},
    show,
};

use super::output::{Output, OutputArgs, check_plot};
use crate::{
    args::{Dtype, at_least_one, check_heads, lengths},
    calibrated::{self, Layer},
    exit::usage,
    progress::{Meter, Unit},
    run_file::About,
};

/// Elements of a head of the inputs.
const HEAD_DIM: usize = 128;

const EXAMPLES: &str = "\
Examples:
  sparse-accelerate bench frontier --lengths 32k --oracle-only
  sparse-accelerate bench frontier --lengths 32k,128k --selectors dynamic,dynamic:granularity=per-kv-head,paper \\
      --out frontier.jsonl --plot frontier.svg
  sparse-accelerate bench frontier --lengths 1k,2k,4k,8k --selectors auto --max-slowdown 1.02
  sparse-accelerate bench frontier --model DIR --text book.txt --lengths 16k,32k --selectors group-blocks,hybrid --tiles 8

With --model the heads are those of a trained model: one dense pass of the text, every layer judged on its own queries, keys and
values; densities and recalls are means over layers, times are added up. `this / oracle` then says how much room is left on
your model.

A selector is an attention with its parameters, as `eval --help` lists them; those that choose from the input
are run at every recall floor; group-blocks and its presets begin there, without a limit for the error. baseline:NAME is a published one, as listed there, and has no floor, nor have
triangular and auto. Prices and the least sparse length are those of `calibrate`, where it has run on this
device.";

/// The end of the help: examples, and the published selectors.
fn after_help() -> String {
    let names: Vec<String> = baselines()
        .iter()
        .map(|text| format!("  baseline:{text}"))
        .collect();
    format!("{EXAMPLES}\n\nPublished selectors:\n{}", names.join("\n"))
}

/// Arguments of `bench frontier`.
#[derive(Debug, Args)]
#[command(after_help = after_help())]
pub(crate) struct FrontierArgs {
    /// auto, flex, wgpu[:n], vulkan[:n], metal[:n] or cuda[:n]; `doctor` lists them
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: String,

    /// Element type [default: bf16 where the device computes in it, else f16, else f32]
    #[arg(long, value_name = "TYPE")]
    dtype: Option<Dtype>,

    /// Prompt lengths in tokens; k is 1024
    #[arg(long, value_name = "N,N...", default_value = "32k")]
    lengths: String,

    /// Model directory whose layers are judged, in place of one layer of inputs that are made
    #[arg(
        long,
        short,
        value_name = "DIR",
        conflicts_with_all = ["heads", "kv_heads", "family", "seed", "max_slowdown"]
    )]
    model: Option<PathBuf>,

    /// Text that the model reads, from its start (UTF-8) [default: the demo's, some 10,000 tokens of the Jargon File]
    #[arg(long, value_name = "FILE", requires = "model")]
    text: Option<PathBuf>,

    /// Query heads
    #[arg(long, value_name = "N", default_value_t = 32)]
    heads: usize,

    /// KV heads, a divisor of the query heads
    #[arg(long, value_name = "N", default_value_t = 8)]
    kv_heads: usize,

    /// Inputs: attention as trained models have it, or independent normals
    #[arg(long, value_name = "FAMILY", default_value = "structured")]
    family: FamilyName,

    /// Seed of the inputs
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u32,

    /// Query blocks of 128 rows that errors are taken on, spread over the prompt
    #[arg(long, value_name = "N", default_value_t = 48)]
    tiles: usize,

    /// Recall floors, 0 to 1
    #[arg(
        long,
        value_name = "X,X...",
        value_delimiter = ',',
        default_value = "0.7,0.8,0.9,0.95,0.98"
    )]
    recall: Vec<f64>,

    /// Selectors of keys, see below
    #[arg(
        long,
        value_name = "S,S...",
        default_value = "group-blocks,dynamic,hybrid,interval-slash,block-cluster,paper,triangular"
    )]
    selectors: String,

    /// The oracle alone
    #[arg(long, conflicts_with_all = ["selectors", "max_slowdown"])]
    oracle_only: bool,

    /// Timed runs of each selection and of dense, by turns; medians count
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: usize,

    /// Measure `auto` too, and fail at the first length where it takes more than X times as long as dense
    #[arg(long, value_name = "X")]
    max_slowdown: Option<f64>,

    /// Draw the first length's errors against densities into this .svg or .png file
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    plot: Option<PathBuf>,

    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FamilyName {
    Structured,
    Random,
}

impl FamilyName {
    fn family(self) -> Family {
        match self {
            Self::Structured => Family::Structured,
            Self::Random => Family::Random,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Structured => "structured",
            Self::Random => "random",
        }
    }
}

/// Runs the command.
pub(crate) fn run(args: &FrontierArgs) -> Result<ExitCode> {
    let lengths = lengths("--lengths", &args.lengths)?;
    let selectors = selectors(args)?;
    check(args)?;
    if let Some(model) = &args.model {
        return layers::run(args, model, &lengths, &selectors);
    }
    let choice: DeviceChoice = args.device.parse()?;
    let selected = select(choice)?;
    let dtype = match args.dtype {
        Some(dtype) => dtype.into(),
        None => selected.default_dtype(WeightDtype::Bf16),
    };
    eprintln!("device: {}", selected.reason);
    let layer = Layer {
        dtype,
        head_dim: HEAD_DIM,
        group: args.heads / args.kv_heads,
    };
    let calibration = calibrated::load(&selected.info, layer)?;
    let bench = Bench {
        args,
        selected: &selected,
        dtype,
        costs: calibration
            .as_ref()
            .map_or_else(Prices::default, |c| c.costs),
        min_sparse_len: calibration
            .as_ref()
            .and_then(|c| c.break_even.min_sparse_len()),
    };
    let mut output = Output::new(&args.output, bench.about())?;
    let mut slow = None;
    for length in lengths {
        if let Err(error) = bench.length(length, &selectors, &mut output, &mut slow)? {
            let what = format!("{} tokens", show::tokens(length));
            output.skip(what, error)?;
        }
        if slow.is_some() {
            break;
        }
    }
    let code = output.finish(args.plot.as_deref())?;
    match slow {
        Some(slow) => {
            eprintln!("error: {slow}");
            Ok(ExitCode::FAILURE)
        }
        None => Ok(code),
    }
}

fn selectors(args: &FrontierArgs) -> Result<Vec<Selector>> {
    if args.oracle_only {
        return Ok(Vec::new());
    }
    let mut selectors = parse_selectors(&args.selectors)?;
    if args.max_slowdown.is_some() && !selectors.iter().any(Selector::is_auto) {
        selectors.push(Selector::auto());
    }
    Ok(selectors)
}

fn check(args: &FrontierArgs) -> Result<()> {
    at_least_one(&[("--runs", args.runs), ("--tiles", args.tiles)])?;
    check_heads(args.heads, args.kv_heads)?;
    if let Some(floor) = args
        .recall
        .iter()
        .find(|floor| !(0.0..=1.0).contains(*floor))
    {
        return Err(usage(format!("--recall {floor}: must be between 0 and 1")));
    }
    if let Some(most) = args
        .max_slowdown
        .filter(|most| most.is_nan() || *most <= 0.0)
    {
        return Err(usage(format!("--max-slowdown {most}: must be above 0")));
    }
    check_plot(args.plot.as_deref())
}

/// Every selector at every floor it has.
fn cases<'a>(args: &FrontierArgs, selectors: &'a [Selector]) -> Vec<(&'a Selector, Option<f64>)> {
    let floors = |selector: &Selector| -> Vec<Option<f64>> {
        match selector.has_floor() {
            true => args.recall.iter().copied().map(Some).collect(),
            false => vec![None],
        }
    };
    let of = |selector: &'a Selector| floors(selector).into_iter().map(move |f| (selector, f));
    selectors.iter().flat_map(of).collect()
}

/// The row of a case that is already there.
fn known(
    output: &Output,
    length: usize,
    (selector, floor): (&Selector, Option<f64>),
) -> Option<Line> {
    output.find(|row| match row {
        Line::Frontier(row) => {
            (row.length, row.floor) == (length, floor) && row.selector == selector.name()
        }
        _ => false,
    })
}

/// Tells whether every row of the oracle at a length is there.
fn oracle_done(output: &Output, length: usize) -> bool {
    let rows = output.count(|row| matches!(row, Line::Oracle(row) if row.length == length));
    rows == 4 * SHARES.len()
}

/// One run of the command.
struct Bench<'a> {
    args: &'a FrontierArgs,
    selected: &'a Selected,
    dtype: WeightDtype,
    costs: Prices,
    min_sparse_len: Option<usize>,
}

impl Bench<'_> {
    fn about(&self) -> About {
        let args = self.args;
        let mut settings = Map::new();
        settings.insert("family".into(), json!(args.family.name()));
        settings.insert("heads".into(), json!(args.heads));
        settings.insert("kv_heads".into(), json!(args.kv_heads));
        settings.insert("tiles".into(), json!(args.tiles));
        settings.insert("runs".into(), json!(args.runs));
        settings.insert("costs".into(), json!(self.costs));
        settings.insert("min_sparse_len".into(), json!(self.min_sparse_len));
        About {
            command: "bench frontier".into(),
            seed: args.seed.into(),
            model: None,
            device: self.selected.reason.clone(),
            dtype: self.dtype.to_string(),
            chunk: 0,
            settings,
        }
    }

    /// Everything of one length that is not there yet; the inner error is why its inputs could not be
    /// made. `slow` is set to what to say of an `auto` that is slower than allowed.
    fn length(
        &self,
        length: usize,
        selectors: &[Selector],
        output: &mut Output,
        slow: &mut Option<String>,
    ) -> Result<Result<(), SpeedError>> {
        let oracle_done = oracle_done(output, length);
        let cases = cases(self.args, selectors);
        let found = |output: &Output, case: &(&Selector, Option<f64>)| known(output, length, *case);
        let all_done = cases.iter().all(|case| found(output, case).is_some());
        let frontier = match oracle_done && all_done {
            true => None,
            false => match self.inputs(length) {
                Ok(frontier) => Some(frontier),
                Err(error) => return Ok(Err(error)),
            },
        };
        if let Some(frontier) = frontier.as_ref().filter(|_| !oracle_done) {
            self.oracle(frontier, length, output)?;
        }
        for case in &cases {
            let row = match (found(output, case), &frontier) {
                (Some(Line::Frontier(row)), _) => Some(row),
                (_, Some(frontier)) => self.selection(frontier, length, *case, output)?,
                _ => None,
            };
            if let Some(row) = row.filter(|_| case.0.is_auto()) {
                *slow = slow.take().or_else(|| self.too_slow(&row));
            }
        }
        Ok(Ok(()))
    }

    fn inputs(&self, length: usize) -> Result<Frontier, SpeedError> {
        let args = self.args;
        let shape = FrontierShape {
            heads: args.heads,
            kv_heads: args.kv_heads,
            head_dim: HEAD_DIM,
            length,
        };
        let settings = FrontierSettings {
            family: args.family.family(),
            seed: args.seed,
            dtype: self.dtype,
            tiles: args.tiles,
            runs: args.runs,
        };
        Frontier::new(&self.selected.device, shape, settings)
    }

    fn oracle(&self, frontier: &Frontier, length: usize, output: &mut Output) -> Result<()> {
        let what = format!("the oracle at {} tokens", show::tokens(length));
        let mut meter = Meter::new(&what, Unit::Blocks);
        let rows = frontier.oracle(&mut |done, all| meter.set(done as u64, all as u64));
        meter.clear();
        match rows {
            Ok(rows) => {
                for row in rows {
                    let line = Line::Oracle(row);
                    // After an interruption some of them are there.
                    if output.find(|known| *known == line).is_none() {
                        output.push(line)?;
                    }
                }
                Ok(())
            }
            Err(error) => output.skip(what, error),
        }
    }

    fn selection(
        &self,
        frontier: &Frontier,
        length: usize,
        (selector, floor): (&Selector, Option<f64>),
        output: &mut Output,
    ) -> Result<Option<FrontierRow>> {
        let at = floor.map_or(String::new(), |floor| format!(" at recall {floor}"));
        let what = format!("{}{at}, {} tokens", selector.name(), show::tokens(length));
        match frontier.select(selector, floor, self.costs, self.min_sparse_len) {
            Ok(row) => {
                eprintln!(
                    "{what}: density {:.3}, error {}, {} ms, {:.3} of dense",
                    row.density,
                    show::error(Some(row.error)),
                    show::number(row.total_ms),
                    row.total_ms / row.dense_ms
                );
                output.push(Line::Frontier(row.clone()))?;
                Ok(Some(row))
            }
            Err(error) => {
                output.skip(what, error)?;
                Ok(None)
            }
        }
    }

    fn too_slow(&self, row: &FrontierRow) -> Option<String> {
        let most = self.args.max_slowdown?;
        let ratio = row.total_ms / row.dense_ms;
        (ratio > most).then(|| {
            format!(
                "{} at {} tokens takes {ratio:.3} times as long as dense, more than --max-slowdown {most}; \
                 `calibrate` measures from which length it pays here",
                row.selector,
                show::tokens(row.length)
            )
        })
    }
}
