//! `doctor`: what this machine can run, and what this build contains.
//!
//! Opens every device once to read its features and limits. Good to attach to a bug report.

use std::{collections::BTreeMap, fmt::Write, path::PathBuf};

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use sparse_accelerate_engine::{
    calibration::{CACHE_ENV, Calibration, CalibrationError, Store, cache_dir},
    device::{Backend, Capabilities, DeviceChoice, DeviceInfo, list_devices, select},
    memory::Bytes,
};

use crate::{
    calibrate::sparse_from,
    output::{print_json, print_text},
};

/// Environment variable that moves the data folder (downloads and converted models of xtask).
const DATA_ENV: &str = "SPARSE_ACCELERATE_DATA";

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    system: String,
    /// Cargo features of backends, and whether this build has them.
    features: BTreeMap<&'static str, bool>,
    data_dir: PathBuf,
    data_dir_exists: bool,
    /// Folder of the files that `calibrate` writes; null if there is none.
    cache_dir: Option<PathBuf>,
    auto: String,
    devices: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Entry {
    #[serde(flatten)]
    info: DeviceInfo,
    tiers: Vec<Tier>,
    calibrations: Vec<Kept>,
}

/// A file of `calibrate`.
#[derive(Debug, Serialize)]
struct Kept {
    file: PathBuf,
    /// Its contents, or the reason why it cannot be used.
    summary: String,
    calibration: Option<Calibration>,
}

/// Support of a group of kernels on a device.
#[derive(Debug, Serialize)]
struct Tier {
    name: &'static str,
    runs: bool,
    reason: String,
}

/// Runs the command.
pub(crate) fn run(args: &DoctorArgs) -> Result<()> {
    let data_dir = data_dir();
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        features: BTreeMap::from(Backend::ALL.map(|b| (b.name(), b.built_in()))),
        data_dir_exists: data_dir.is_dir(),
        data_dir,
        cache_dir: cache_dir(),
        devices: list_devices()
            .into_iter()
            .map(|info| Entry {
                tiers: tiers(&info),
                calibrations: calibrations(&info),
                info,
            })
            .collect(),
        auto: match select(DeviceChoice::Auto) {
            Ok(selected) => selected.reason,
            Err(error) => error.to_string(),
        },
    };
    if args.json {
        return print_json(&report);
    }
    print_text(&render(&report)?)
}

fn data_dir() -> PathBuf {
    match std::env::var_os(DATA_ENV).filter(|value| !value.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(".data"),
    }
}

fn calibrations(info: &DeviceInfo) -> Vec<Kept> {
    let found = Store::user().map(|store| store.of_device(info));
    let kept = |(file, found): (PathBuf, Result<Calibration, CalibrationError>)| match found {
        Ok(calibration) => {
            let key = &calibration.key;
            let shape = format!("{} d{} g{}", key.dtype, key.head_dim, key.group);
            Kept {
                file,
                summary: format!("{shape}: {}", sparse_from(&calibration.break_even)),
                calibration: Some(calibration),
            }
        }
        Err(error) => Kept {
            file,
            summary: error.to_string(),
            calibration: None,
        },
    };
    found.into_iter().flatten().map(kept).collect()
}

fn tiers(info: &DeviceInfo) -> Vec<Tier> {
    let opened = info.capabilities.is_some();
    let native = info.choice == DeviceChoice::FLEX;
    let general = Tier {
        name: if native { "native CPU" } else { "unit" },
        runs: opened,
        reason: match (opened, native) {
            (false, _) => "the device could not be opened; see its driver".to_string(),
            (true, true) => "runs: Rust loops over all cores".to_string(),
            (true, false) => "runs: plain arithmetic, needs no device feature".to_string(),
        },
    };
    // What the kernels ask for, see `kernels_cubecl::attend::candidates`.
    let served: Vec<&str> = info.capabilities.as_ref().map_or_else(Vec::new, |c| {
        let has = |t: &&str| {
            let operands = format!(" {t}*{t}+f32");
            let suits = |unit: &String| {
                let sides: Option<Vec<&str>> =
                    unit.strip_suffix(&operands).map(|s| s.split('x').collect());
                matches!(
                    sides.as_deref(),
                    Some(["8" | "16", "8" | "16" | "32", "8" | "16" | "32"])
                )
            };
            c.plane_size.0 == c.plane_size.1 && c.matrix_units.iter().any(suits)
        };
        ["f16", "bf16"].into_iter().filter(has).collect()
    });
    let matrix = Tier {
        name: "matrix unit",
        runs: !served.is_empty(),
        reason: match served.is_empty() {
            true => {
                "no products of tiles with 8 or 16 rows and f32 sums, or planes of several sizes"
                    .to_string()
            }
            false => format!("runs: attention in {}", served.join(" and ")),
        },
    };
    vec![general, matrix]
}

fn render(report: &Report) -> Result<String, std::fmt::Error> {
    let list = |wanted: bool| {
        let of_kind = report.features.iter().filter(|(_, on)| **on == wanted);
        let names: Vec<_> = of_kind.map(|(name, _)| *name).collect();
        if names.is_empty() {
            "none".to_string()
        } else {
            names.join(", ")
        }
    };
    let mut out = String::new();
    writeln!(
        out,
        "sparse-accelerate {} on {}",
        report.version, report.system
    )?;
    writeln!(out, "built in:   {} (cargo features)", list(true))?;
    writeln!(out, "left out:   {}", list(false))?;
    let state = if report.data_dir_exists {
        "exists"
    } else {
        "not made yet"
    };
    let data = report.data_dir.display();
    writeln!(out, "data:       {data} ({state}; {DATA_ENV} moves it)")?;
    match &report.cache_dir {
        Some(dir) => writeln!(out, "cache:      {} ({CACHE_ENV} moves it)", dir.display())?,
        None => writeln!(out, "cache:      no place is known; set {CACHE_ENV}")?,
    }
    writeln!(out, "auto picks: {}", report.auto)?;
    for entry in &report.devices {
        let info = &entry.info;
        writeln!(out, "\n{}  {}", info.choice, info.title())?;
        writeln!(out, "  backend        {}", info.backend)?;
        if let Some(bytes) = info.memory {
            writeln!(out, "  memory         {}", Bytes(bytes))?;
        }
        if let Some(capabilities) = &info.capabilities {
            render_capabilities(&mut out, capabilities)?;
        }
        for tier in &entry.tiers {
            writeln!(out, "  {:<14} {}", tier.name, tier.reason)?;
        }
        for kept in &entry.calibrations {
            writeln!(out, "  calibrated     {}", kept.summary)?;
        }
    }
    Ok(out)
}

fn render_capabilities(out: &mut String, can: &Capabilities) -> std::fmt::Result {
    let yes = |on: bool| if on { "yes" } else { "no" };
    let (f16, bf16) = (yes(can.f16), yes(can.bf16));
    writeln!(out, "  types          f32 yes, f16 {f16}, bf16 {bf16}")?;
    let Some(shared) = can.max_shared_memory else {
        return Ok(());
    };
    let (low, high) = can.plane_size;
    writeln!(
        out,
        "  plane ops      {}, size {low} to {high}",
        yes(can.plane_ops)
    )?;
    let units = can.max_units_per_cube.unwrap_or(0);
    writeln!(
        out,
        "  shared memory  {} KiB a cube, up to {units} units",
        shared / 1024
    )?;
    if let Some(bytes) = can.max_binding {
        writeln!(out, "  largest tensor {}", Bytes(bytes))?;
    }
    let shapes = &can.matrix_units;
    let shown = shapes
        .iter()
        .take(4)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    match shapes.len() {
        0 => writeln!(out, "  matrix units   none"),
        n if n > 4 => writeln!(out, "  matrix units   {shown}, and {} more", n - 4),
        _ => writeln!(out, "  matrix units   {shown}"),
    }
}
