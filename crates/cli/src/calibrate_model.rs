//! `calibrate --model`: a model's own record on a device, kept for later runs.

use std::{fs, path::Path};

use anyhow::Result;
use sparse_accelerate::Preset;
use sparse_accelerate_engine::{
    EngineError, Loaded,
    calibration::{LengthRecord, ModelRecord},
};
use sparse_accelerate_eval::{
    model_outline,
    speed::{Case, TtftSettings, repeated, ttft},
    text_hash, version,
};
use sparse_accelerate_report::{record::TtftRow, show};

use crate::{
    args::RunOnArgs,
    calibrate::{CalibrateArgs, written},
    calibrated::Layer,
    exit::usage,
    load::Opened,
    output::print_json,
    progress::{Meter, Unit},
};

/// Runs the command: dense and preset `balanced` on the start of a text, length by length, as far as model and memory go.
pub(crate) fn run(
    args: &CalibrateArgs,
    model: &Path,
    text: &Path,
    lengths: &[usize],
) -> Result<()> {
    let opened = Opened::at(model, &RunOnArgs::on(&args.device, args.dtype))?;
    let read = fs::read_to_string(text)
        .map_err(|error| usage(format!("--text {}: {error}", text.display())))?;
    let ids = opened.dir.tokenizer().encode(&read, true)?;
    if ids.is_empty() {
        let path = text.display();
        return Err(usage(format!("--text {path}: there is nothing in it")));
    }
    eprintln!("device: {}", opened.describe());
    let sparse = Case {
        name: Preset::Balanced.name().into(),
        settings: sparse_accelerate::AttentionSettings {
            mode: sparse_accelerate::AttentionMode::Sparse,
            ..Preset::Balanced.settings()
        },
        forced: false,
    };
    let cases = [Case::dense(), sparse];
    let mut held: Option<Loaded> = None;
    let mut found = Vec::new();
    for length in lengths {
        let settings = cases.each_ref().map(|case| &case.settings);
        let placement = match opened.check(*length, 0, &settings) {
            Ok((placement, _)) => placement,
            // What is longer has no room either.
            Err(error) if !found.is_empty() => {
                eprintln!("note: {} tokens: {error:#}", show::tokens(*length));
                break;
            }
            Err(error) => return Err(error),
        };
        let model = match held.take() {
            Some(model) => model,
            None => opened.load(&placement)?,
        };
        let ids = repeated(&ids, *length);
        let [dense, sparse] = [
            row(&model, &opened, args.runs, &ids, &cases[0])?,
            row(&model, &opened, args.runs, &ids, &cases[1])?,
        ];
        let measured = LengthRecord {
            tokens: *length,
            dense_s: dense.ttft_s,
            sparse_s: sparse.ttft_s,
            density: sparse.density,
        };
        let ratio = show::number(measured.sparse_s / measured.dense_s);
        eprintln!(
            "{} tokens: dense {} s, {} {} s ({ratio} of dense) at density {}",
            show::tokens(*length),
            show::number(measured.dense_s),
            cases[1].name,
            show::number(measured.sparse_s),
            show::number(measured.density)
        );
        found.push(measured);
        held = Some(model);
    }
    let layer = Layer::of(opened.dir.config(), opened.target.dtype);
    let info = &opened.target.devices.first().info;
    let outline = model_outline(opened.dir.path())?;
    let record = ModelRecord::new(layer.key(info), outline, version(), text_hash(&read), found);
    let path = match &args.out {
        Some(path) => record.write(path).map(|()| path.clone()),
        None => record.save(),
    };
    let path = path.map_err(EngineError::from)?;
    if args.json {
        print_json(&record)?;
    }
    written(&record.break_even, &path);
    Ok(())
}

/// One attention at one length, with progress.
fn row(model: &Loaded, opened: &Opened, runs: usize, ids: &[u32], case: &Case) -> Result<TtftRow> {
    let settings = TtftSettings {
        chunk: opened.target.chunk,
        runs,
    };
    let label = format!("{} at {} tokens", case.name, show::tokens(ids.len()));
    let mut meter = Meter::new(label, Unit::Tokens);
    let total = ((runs + 1) * ids.len()) as u64;
    let measured = ttft(model, case, ids, settings, None, &mut |run, progress| {
        meter.set((run * progress.total + progress.done) as u64, total);
    });
    meter.clear();
    Ok(measured?.row)
}
