//! `calibrate --model`: a model's own record on a device, kept for later runs.

use std::path::Path;

use anyhow::Result;
use sparse_accelerate::Preset;
use sparse_accelerate_engine::{
    EngineError,
    attention::parse_attentions,
    calibration::{LengthRecord, ModelRecord},
};
use sparse_accelerate_eval::{
    model_outline,
    speed::{Case, TtftSettings, repeated},
    version,
};
use sparse_accelerate_report::show;

use crate::{
    args::RunOnArgs,
    bench::ttft::{Text, timed},
    calibrate::{CalibrateArgs, written},
    calibrated::Layer,
    load::Opened,
    output::print_json,
};

/// Runs the command: dense and preset `balanced` on the start of a text, length by length, as far as model and memory go.
pub(crate) fn run(args: &CalibrateArgs, model: &Path, text: &Path) -> Result<()> {
    let opened = Opened::at(model, &RunOnArgs::on(&args.device, args.dtype))?;
    let lengths = args.break_even(opened.target.devices.is_flex())?;
    let text = Text::read(text, &opened.dir)?;
    eprintln!("device: {}", opened.describe());
    let balanced = parse_attentions(Preset::Balanced.name())?;
    let others = balanced.into_iter().map(Case::from);
    let mut cases = vec![Case::dense()];
    cases.extend(others.filter(|case| !case.is_dense()));
    let attentions: Vec<_> = cases.iter().map(|case| &case.settings).collect();
    let settings = TtftSettings {
        chunk: opened.target.chunk,
        runs: args.runs,
    };
    let mut held = None;
    let mut found = Vec::new();
    for length in lengths {
        let placement = match opened.check(length, 0, &attentions) {
            Ok((placement, _)) => placement,
            // What is longer has no room either.
            Err(error) if !found.is_empty() => {
                eprintln!("note: {} tokens: {error:#}", show::tokens(length));
                break;
            }
            Err(error) => return Err(error),
        };
        let model = match &held {
            Some(model) => model,
            None => held.insert(opened.load(&placement)?),
        };
        let ids = repeated(&text.ids, length);
        let row = |case| Ok::<_, anyhow::Error>(timed(model, case, &ids, settings, None)?.row);
        let (dense, sparse) = (row(&cases[0])?, row(&cases[1])?);
        eprintln!(
            "{} tokens: dense {} s, {} {} s ({} of dense) at density {}",
            show::tokens(length),
            show::number(dense.ttft_s),
            sparse.attention,
            show::number(sparse.ttft_s),
            show::number(sparse.ttft_s / dense.ttft_s),
            show::number(sparse.density)
        );
        found.push(LengthRecord {
            tokens: length,
            dense_s: dense.ttft_s,
            sparse_s: sparse.ttft_s,
            density: sparse.density,
        });
    }
    let layer = Layer::of(opened.dir.config(), opened.target.dtype);
    let key = layer.key(&opened.target.devices.first().info);
    let outline = model_outline(opened.dir.path())?;
    let record = ModelRecord::new(key, outline, version(), text.hash, found);
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
