//! Arguments shared by several commands.

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use clap::{Args, ValueEnum};
use sparse_accelerate::KvType;
use sparse_accelerate_checkpoint::WeightDtype;
use sparse_accelerate_engine::{
    DeviceChoice, Devices, EngineError, Transport, memory::Bytes, parse_lengths, placement::Split,
};

use crate::exit::usage;

/// A model directory and the run of it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model and device")]
pub(crate) struct ModelArgs {
    /// Model directory in Hugging Face layout (config.json, tokenizer.json, *.safetensors)
    #[arg(long, short, value_name = "DIR")]
    pub(crate) model: PathBuf,

    #[command(flatten)]
    pub(crate) run: RunOnArgs,
}

/// Devices, and the sizes of a run on them.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunOnArgs {
    #[command(flatten)]
    devices: DeviceArgs,

    #[command(flatten)]
    pub(crate) sizes: SizeArgs,
}

/// Element types, chunk and memory: what `plan` asks as every run does.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model and device")]
pub(crate) struct SizeArgs {
    /// Type of weights, activations and, unless --kv-dtype says otherwise, cache [default: f32 on the CPU; on a GPU the stored type
    /// where it computes in it, else f16]
    #[arg(long, value_name = "TYPE")]
    dtype: Option<Dtype>,

    /// Type of the KV cache: int8 takes half the memory of 16-bit types, and costs a little accuracy
    #[arg(long, value_name = "TYPE", default_value = "model")]
    kv_dtype: KvDtype,

    /// Prompt tokens computed at a time; more is faster and needs more memory
    /// [default: 2048 on the CPU, 8192 on a GPU]
    #[arg(long, value_name = "N")]
    chunk: Option<usize>,

    /// Plan as if every device had no more than this, such as 24g or 22528m
    #[arg(long, value_name = "SIZE")]
    memory_limit: Option<String>,
}

/// One device, or one for every stage of a pipeline.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model and device")]
struct DeviceArgs {
    /// auto, flex, wgpu[:n], vulkan[:n], metal[:n] or cuda[:n]; `doctor` lists them
    #[arg(
        long,
        value_name = "DEVICE",
        default_value = "auto",
        conflicts_with_all = ["split", "transport", "chunks", "stall_limit"]
    )]
    device: String,

    /// Cut the model into stages, one a device, that work on different chunks at once: cuda:0,cuda:1
    #[arg(
        long,
        value_name = "DEVICE,DEVICE...",
        value_delimiter = ',',
        conflicts_with = "device"
    )]
    devices: Vec<String>,

    /// Layers of each device: auto (least time, as far as memory allows), by-memory, or N,M,...; see `plan`
    #[arg(
        long,
        value_name = "SPLIT",
        default_value = "auto",
        requires = "devices"
    )]
    split: String,

    /// How hidden states get to the next device: its backend's way (NCCL between CUDA devices where it is
    /// installed), or through the host's memory
    #[arg(long, value_name = "WAY", default_value = "peer", requires = "devices")]
    transport: TransportArg,

    /// Chunks of equal time that a prompt is cut into, none longer than --chunk: stages wait for one of them
    /// [default: by the prompt's
    /// length and attention]
    #[arg(long, value_name = "N", requires = "devices")]
    chunks: Option<usize>,

    /// Seconds without a sign of life from any stage after which the run ends with an error
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 300.0,
        requires = "devices"
    )]
    stall_limit: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TransportArg {
    /// From device to device
    Peer,
    /// Through the host
    Host,
}

impl SizeArgs {
    /// The type of weights asked for.
    pub(crate) fn dtype(&self) -> Option<WeightDtype> {
        self.dtype.map(Into::into)
    }

    /// The type of the KV cache.
    pub(crate) fn kv_type(&self) -> KvType {
        self.kv_dtype.into()
    }

    /// Prompt tokens computed at a time, or `default`.
    pub(crate) fn chunk(&self, default: usize) -> Result<usize> {
        let chunk = self.chunk.unwrap_or(default);
        at_least_one(&[("--chunk", chunk)])?;
        Ok(chunk)
    }

    /// Bytes that every device may be taken to have.
    pub(crate) fn memory_limit(&self) -> Result<Option<u64>> {
        let limit = self.memory_limit.as_deref().map(str::parse::<Bytes>);
        let limit = limit
            .transpose()
            .map_err(|error| usage(error.to_string()))?;
        Ok(limit.map(|bytes| bytes.0))
    }
}

impl RunOnArgs {
    /// One device, and defaults otherwise.
    pub(crate) fn on(device: &str, dtype: Option<Dtype>) -> Self {
        Self {
            devices: DeviceArgs {
                device: device.into(),
                devices: Vec::new(),
                split: "auto".into(),
                transport: TransportArg::Peer,
                chunks: None,
                stall_limit: 300.0,
            },
            sizes: SizeArgs {
                dtype,
                kv_dtype: KvDtype::Model,
                chunk: None,
                memory_limit: None,
            },
        }
    }

    /// Opens the devices.
    pub(crate) fn open(&self) -> Result<Devices> {
        let args = &self.devices;
        let names = match args.devices.as_slice() {
            [] => std::slice::from_ref(&args.device),
            some => some,
        };
        let choices: Result<Vec<DeviceChoice>, _> =
            names.iter().map(|name| name.trim().parse()).collect();
        let split = args.split.parse::<Split>().map_err(EngineError::from)?;
        let stall = Duration::try_from_secs_f64(args.stall_limit)
            .ok()
            .filter(|stall| !stall.is_zero());
        let stall = stall.ok_or_else(|| {
            usage(format!(
                "--stall-limit is {}, but must be above 0 seconds",
                args.stall_limit
            ))
        })?;
        let mut devices = Devices::open(&choices?)?;
        devices.split = split;
        devices.model.kv = self.sizes.kv_type();
        devices.memory_limit = self.sizes.memory_limit()?;
        devices.stall = stall;
        at_least_one(&[("--chunks", args.chunks.unwrap_or(1))])?;
        devices.chunks = args.chunks;
        devices.transport = match args.transport {
            TransportArg::Peer => Transport::Peer,
            TransportArg::Host => Transport::Host,
        };
        Ok(devices)
    }
}

/// Refuses counts of 0, by their flags.
pub(crate) fn at_least_one(counts: &[(&str, usize)]) -> Result<()> {
    match counts.iter().find(|(_, count)| *count == 0) {
        Some((flag, _)) => Err(usage(format!("{flag} is 0, but must be at least 1"))),
        None => Ok(()),
    }
}

/// Refuses KV heads that do not divide the query heads.
pub(crate) fn check_heads(heads: usize, kv_heads: usize) -> Result<()> {
    if kv_heads == 0 || heads == 0 || !heads.is_multiple_of(kv_heads) {
        return Err(usage(format!(
            "--kv-heads {kv_heads} does not divide --heads {heads}"
        )));
    }
    Ok(())
}

/// Reads the lengths of a flag.
pub(crate) fn lengths(flag: &str, text: &str) -> Result<Vec<usize>> {
    parse_lengths(text).map_err(|error| usage(format!("{flag} {error}")))
}

/// Reads `--top-k`, of which some programs say off with -1.
fn top_k(text: &str) -> Result<usize, String> {
    match text.trim() {
        "-1" => Ok(0),
        text => text
            .parse()
            .map_err(|_| "a number of tokens, or 0 or -1 for all of them".to_owned()),
    }
}

/// Reads the one length of a flag.
pub(crate) fn one_length(flag: &str, text: &str) -> Result<usize> {
    match parse_lengths(text).as_deref() {
        Ok([length]) => Ok(*length),
        _ => Err(usage(format!(
            "{flag} {text} is no number of tokens; write one such as 32k or 32768"
        ))),
    }
}

/// A weight type as written on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dtype {
    /// 32-bit float
    F32,
    /// 16-bit float
    F16,
    /// bfloat16
    Bf16,
}

/// How a KV cache keeps keys and values, as written on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KvDtype {
    /// In the type of the weights
    Model,
    /// 8-bit integers with a scale for every token and head
    Int8,
}

impl From<KvDtype> for KvType {
    fn from(kv: KvDtype) -> Self {
        match kv {
            KvDtype::Model => KvType::Model,
            KvDtype::Int8 => KvType::Int8,
        }
    }
}

impl From<Dtype> for WeightDtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => WeightDtype::F32,
            Dtype::F16 => WeightDtype::F16,
            Dtype::Bf16 => WeightDtype::Bf16,
        }
    }
}

/// How tokens are chosen. Everything left out comes from the model's generation_config.json, which
/// is greedy unless it says otherwise.
#[derive(Debug, Args)]
#[command(
    next_help_heading = "Sampling (applied in this order; default from the model, else greedy)"
)]
pub(crate) struct SamplingArgs {
    /// Make tokens already seen less likely; 1 is off
    #[arg(long, value_name = "X")]
    pub(crate) repetition_penalty: Option<f32>,

    /// 0 always takes the most likely token; higher is more varied
    #[arg(long, value_name = "T")]
    pub(crate) temperature: Option<f32>,

    /// Keep the K most likely tokens; 0 or -1 is off
    #[arg(long, value_name = "K", value_parser = top_k, allow_negative_numbers = true)]
    pub(crate) top_k: Option<usize>,

    /// Keep the fewest tokens whose probabilities reach P; 1 is off
    #[arg(long, value_name = "P")]
    pub(crate) top_p: Option<f32>,

    /// Keep tokens at least P times as likely as the likeliest; 0 is off
    #[arg(long, value_name = "P")]
    pub(crate) min_p: Option<f32>,

    /// Seed; the same seed gives the same text
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,

    /// End the text before this string; may be given several times
    #[arg(long, value_name = "STRING")]
    pub(crate) stop: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_one_number() {
        assert_eq!(one_length("--length", "8k").expect("a length"), 8192);
        for text in ["8k,16k", "long", ""] {
            let error = one_length("--length", text).expect_err("refused");
            assert!(error.to_string().contains("--length"), "{error}");
        }
    }
}
