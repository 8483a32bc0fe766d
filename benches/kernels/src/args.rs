//! The command line.

use std::{num::NonZeroU32, path::PathBuf};

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use half::{bf16, f16};

use crate::save::RUNS;

/// Kernel benchmarks: each row is compared with f64 attention on sampled rows, then timed on the device.
#[derive(Debug, Parser)]
#[command(name = "sparse-accelerate-bench-kernels")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Write the rows as JSON to this file
    #[arg(long, global = true)]
    pub(crate) out: Option<PathBuf>,
    /// Save environment, rows and summary in DIR/DATE-DEVICE; several commands share a folder
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = RUNS
    )]
    pub(crate) save: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Causal attention over the whole prompt
    Dense(Dense),
    /// Causal attention over random key blocks
    Blocks(Blocks),
    /// One query row against a long cache
    Decode(Decode),
    /// Choosing keys: every stage on inputs with structure; printed, not saved
    Select(Select),
    /// Make the summary of a run's folder anew, as after a peer has added its rows; needs no device
    Summary {
        /// The run's folder
        folder: PathBuf,
    },
}

/// Sizes that every command has.
#[derive(Debug, Clone, Args)]
pub(crate) struct Sizes {
    /// Prompt lengths in tokens
    #[arg(long, value_delimiter = ',', default_value = "8192,32768,131072")]
    pub(crate) lens: Vec<usize>,
    /// Query heads
    #[arg(long, default_value_t = 32)]
    pub(crate) heads: usize,
    /// KV heads
    #[arg(long, default_value_t = 8)]
    pub(crate) kv_heads: usize,
    /// Head dimension
    #[arg(long, default_value_t = 128)]
    pub(crate) head_dim: usize,
    /// Element type
    #[arg(long, value_enum, default_value_t = Element::Bf16)]
    pub(crate) dtype: Element,
    /// Measure every way the device has, not just the one that is chosen
    #[arg(long)]
    pub(crate) all: bool,
    /// Measure what the tuner chooses, however small the problem, beside what is taken without it
    #[arg(long, conflicts_with = "all")]
    pub(crate) tuned: bool,
    /// Seed of the inputs
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u32,
    /// Timed runs of each row; the median is reported
    #[arg(long, default_value_t = 10)]
    pub(crate) runs: usize,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Dense {
    #[command(flatten)]
    pub(crate) sizes: Sizes,
    /// Latest keys that a row sees, its own included [default: all]
    #[arg(long)]
    pub(crate) window: Option<NonZeroU32>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Decode {
    #[command(flatten)]
    pub(crate) sizes: Sizes,
    /// Over int8 keys and values, with a scale per token and KV head
    #[arg(long, conflicts_with = "tuned")]
    pub(crate) int8: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Select {
    #[command(flatten)]
    pub(crate) sizes: Sizes,
    /// Least share of the attention that must be kept, with `--group` what a choice begins with
    #[arg(long, default_value_t = 0.8)]
    pub(crate) recall: f32,
    /// Largest error of a head's output, over the layer's mean head; of blocks by their mass
    #[arg(long, default_value_t = 1e3, requires = "group")]
    pub(crate) error: f32,
    /// Blocks by their mass, at the share `--recall` of it, and attention over them
    #[arg(long, conflicts_with = "second")]
    pub(crate) group: bool,
    /// Heads that choose blocks by their mass
    #[arg(long, value_enum, default_value_t = Granularity::Query, requires = "group")]
    pub(crate) per: Granularity,
    /// Score and correct with the second-order term
    #[arg(long)]
    pub(crate) second: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Blocks {
    #[command(flatten)]
    pub(crate) sizes: Sizes,
    /// Sides of the square blocks
    #[arg(long, value_delimiter = ',', default_value = "128,64")]
    pub(crate) blocks: Vec<usize>,
    /// Shares of the causal blocks that are kept
    #[arg(long, value_delimiter = ',', default_value = "0.05,0.1,0.2")]
    pub(crate) densities: Vec<f64>,
    /// Heads with blocks of their own
    #[arg(long, value_enum, default_value_t = Granularity::Query)]
    pub(crate) per: Granularity,
    /// Latest keys that a row sees, its own included [default: all]
    #[arg(long)]
    pub(crate) window: Option<NonZeroU32>,
}

/// Heads that have a mask of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Granularity {
    /// Every query head
    Query,
    /// Every KV head, for its group of query heads
    Kv,
}

impl Granularity {
    pub(crate) fn heads(self, sizes: &Sizes) -> usize {
        match self {
            Self::Query => sizes.heads,
            Self::Kv => sizes.kv_heads,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Element {
    Bf16,
    F16,
}

impl Element {
    /// The bits of inputs in this type.
    pub(crate) fn bits(self, values: &[bf16]) -> Vec<u16> {
        match self {
            Self::Bf16 => values.iter().map(|x| x.to_bits()).collect(),
            Self::F16 => values
                .iter()
                .map(|x| f16::from_f32(x.to_f32()).to_bits())
                .collect(),
        }
    }

    /// Refuses a result that rounding in this type does not explain: no time is taken of it.
    pub(crate) fn check(self, error: f64, what: &str) -> Result<()> {
        let limit = match self {
            Self::Bf16 => 8e-3,
            Self::F16 => 1e-3,
        };
        // Not a number is refused too.
        if error < limit {
            return Ok(());
        }
        bail!("{what}: error {error} against f64, where {limit} is allowed; not timed")
    }

    /// A value of this type.
    pub(crate) fn value(self, bits: u16) -> f32 {
        match self {
            Self::Bf16 => bf16::from_bits(bits).to_f32(),
            Self::F16 => f16::from_bits(bits).to_f32(),
        }
    }
}
