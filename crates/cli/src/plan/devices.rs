//! The devices of a plan: known GPU models by name, or devices of this machine with what is known of them.

use anyhow::Result;
use sparse_accelerate_checkpoint::{ModelConfig, WeightDtype};
use sparse_accelerate_engine::{
    Selected,
    device::{DeviceChoice, select},
    estimate::{ATTENTION_RATE, Rates, WHOLE_MODEL_RATE},
    gpus::{DRIVER_RESERVE, GpuModel, Source, UnknownGpu},
    planner::PlanDevice,
};

use crate::{
    calibrated::{self, Layer},
    exit::usage,
};

/// Tokens of a chunk on known GPU models, as on any GPU.
const GPU_CHUNK: usize = 8192;

/// Numbers of the caller that replace known ones.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given {
    /// Bytes of every device.
    pub(super) memory: Option<u64>,
    /// FLOP/s of all that is not attention.
    pub(super) linear: Option<f64>,
    /// FLOP/s of attention.
    pub(super) attention: Option<f64>,
    /// Type of the weights.
    pub(super) dtype: Option<WeightDtype>,
}

/// Devices, and what a run takes by default on them.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) devices: Vec<PlanDevice>,
    pub(super) dtype: WeightDtype,
    pub(super) chunk: usize,
    pub(super) gpu: bool,
}

/// Looks devices up by their names.
pub(super) fn find(names: &[String], config: &ModelConfig, given: &Given) -> Result<Found> {
    let mut found = Found {
        devices: Vec::new(),
        dtype: given.dtype.unwrap_or(config.dtype),
        chunk: GPU_CHUNK,
        gpu: false,
    };
    let mut opened: Vec<DeviceChoice> = Vec::new();
    for name in names {
        let mut device = match GpuModel::named(name) {
            Ok(gpu) => {
                found.gpu = true;
                PlanDevice::of_model(gpu)
            }
            Err(unknown) => {
                let selected = open(name, unknown, &opened)?;
                opened.push(selected.choice);
                if opened.len() == 1 {
                    let stored = selected.dtype_for(config);
                    found.dtype = given.dtype.unwrap_or(stored);
                    found.chunk = selected.default_chunk();
                }
                found.gpu |= !selected.is_flex();
                of_machine(&selected, config, found.dtype, given)?
            }
        };
        if let Some(memory) = given.memory {
            device.memory = Some(memory);
            device.memory_source = Source::Given;
        }
        if let Some(linear) = given.linear {
            device.rates.linear = linear;
            device.linear_source = Source::Given;
        }
        if let Some(attention) = given.attention {
            (device.rates.dense, device.rates.sparse) = (attention, attention);
            device.attention_source = Source::Given;
        }
        found.devices.push(device);
    }
    Ok(found)
}

/// Opens a device of this machine; a second stage on it would share its memory.
fn open(name: &str, unknown: UnknownGpu, opened: &[DeviceChoice]) -> Result<Selected> {
    let choice: DeviceChoice = name
        .trim()
        .parse()
        .map_err(|_| usage(unknown.to_string()))?;
    let selected = select(choice)?;
    if opened.contains(&selected.choice) {
        return Err(usage(format!(
            "--devices names {} twice; a device holds one stage",
            selected.choice
        )));
    }
    Ok(selected)
}

fn of_machine(
    selected: &Selected,
    config: &ModelConfig,
    dtype: WeightDtype,
    given: &Given,
) -> Result<PlanDevice> {
    let info = &selected.info;
    let reserve = if selected.is_flex() {
        0
    } else {
        DRIVER_RESERVE
    };
    let known = GpuModel::of_device(&info.name, info.memory);
    let (linear, linear_source) = match (known, given.linear) {
        (_, Some(linear)) => (linear, Source::Given),
        (Some(gpu), None) => (gpu.linear(), gpu.shares.source),
        (None, None) => {
            let speed = selected.speed(dtype, config.hidden_size)?;
            let source = "one product on this device, 84 % of it in a whole model as on the H100";
            (WHOLE_MODEL_RATE * speed, Source::Measured(source))
        }
    };
    let calibration = calibrated::load(info, Layer::of(config, dtype))?;
    let measured = calibration.and_then(|found| found.attention_rates());
    let ([dense, sparse], attention_source) = match (measured, known) {
        (Some(rates), _) => (rates, Source::Measured("`calibrate` on this device")),
        (None, Some(gpu)) => ([gpu.attention(); 2], gpu.shares.source),
        (None, None) => {
            let stated = "76 % of the other rate, as on the H100; `calibrate` measures it";
            ([ATTENTION_RATE * linear; 2], Source::Stated(stated))
        }
    };
    Ok(PlanDevice {
        name: selected.choice.to_string(),
        title: format!("{}: {}", selected.choice, info.name),
        memory: info.memory.map(|memory| memory.saturating_sub(reserve)),
        memory_source: Source::Measured(match selected.is_flex() {
            true => "what the system has free",
            false => "what the driver reports, less 512 MiB for itself",
        }),
        rates: Rates {
            linear,
            dense,
            sparse,
        },
        linear_source,
        attention_source,
    })
}
