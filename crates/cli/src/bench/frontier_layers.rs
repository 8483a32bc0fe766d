//! `bench frontier --model`: the layers of a trained model.

use std::{path::Path, process::ExitCode};

use anyhow::Result;
use serde_json::{Map, json};
use sparse_accelerate::select::Prices;
use sparse_accelerate_engine::{Cancel, EngineError};
use sparse_accelerate_eval::{
    EvalError, Subject,
    speed::{LayersSettings, Selector, layers},
};
use sparse_accelerate_report::{record::Line, show};

use super::{FrontierArgs, Output, cases, known, oracle_done};
use crate::{
    args::RunOnArgs,
    calibrated::{self, Layer},
    eval::common::corpus,
    exit::usage,
    interrupt,
    load::Opened,
    progress::{Meter, Unit},
    run_file::{About, checkpoint_metadata},
};

/// Runs the command on a model.
pub(super) fn run(
    args: &FrontierArgs,
    model: &Path,
    lengths: &[usize],
    selectors: &[Selector],
) -> Result<ExitCode> {
    let mut opened = Opened::at(model, &RunOnArgs::on(&args.device, args.dtype))?;
    let corpus = corpus(args.text.as_deref(), opened.dir.tokenizer())?;
    let mut ids = opened.dir.tokenizer().encode("", true)?;
    ids.extend(corpus.ids());
    let longest = lengths.iter().copied().max().unwrap_or(0);
    if longest > ids.len() {
        return Err(usage(format!(
            "--lengths {longest}: {} has {} tokens with this model's tokenizer; give a longer text or ask for fewer",
            corpus.name(),
            ids.len()
        )));
    }
    // A prompt passes as one chunk, so that a layer's queries are seen together.
    opened.target.chunk = longest;
    let (placement, memory) = opened.check(longest, 0, &[])?;
    eprintln!("device: {}", opened.describe());
    eprintln!("planned memory of the pass: {memory}");
    let mut hashing = Meter::new("hashing weights", Unit::Bytes);
    let metadata = checkpoint_metadata(&opened.dir, &mut |done, total| hashing.set(done, total))?;
    hashing.clear();
    let config = opened.dir.config();
    let layer = Layer::of(config, opened.target.dtype);
    let info = &opened.target.devices.first().info;
    let calibration = calibrated::load(info, layer)?;
    let costs = calibration
        .as_ref()
        .map_or_else(Prices::default, |c| c.costs);
    let mut settings = Map::new();
    settings.insert("text".into(), json!(corpus.sha256()));
    settings.insert("tiles".into(), json!(args.tiles));
    settings.insert("runs".into(), json!(args.runs));
    settings.insert("costs".into(), json!(costs));
    let about = About {
        command: "bench frontier".into(),
        seed: 0,
        model: Some(metadata),
        device: opened.target.devices.reason(),
        dtype: opened.target.dtype.to_string(),
        chunk: longest,
        settings,
    };
    let mut output = Output::new(&args.output, about)?;
    let loaded = opened.load(&placement)?;
    let cancel = Cancel::default();
    interrupt::ends(&cancel)?;
    let subject = Subject {
        dir: &opened.dir,
        model: &loaded,
        chunk: longest,
        warm_up: false,
        cancel: &cancel,
    };
    for &length in lengths {
        let missing = cases(args, selectors)
            .into_iter()
            .filter(|case| known(&output, length, *case).is_none());
        let wanted = LayersSettings {
            tiles: args.tiles,
            runs: args.runs,
            oracle: !oracle_done(&output, length),
            cases: missing
                .map(|(selector, floor)| (selector.clone(), floor))
                .collect(),
            costs,
            min_sparse_len: calibration
                .as_ref()
                .and_then(|c| c.break_even.min_sparse_len()),
        };
        if wanted.cases.is_empty() && !wanted.oracle {
            continue;
        }
        let what = format!("layers at {} tokens", show::tokens(length));
        let mut meter = Meter::new(&what, Unit::Layers);
        let found = layers(&subject, &ids[..length], &wanted, &mut |done, all| {
            meter.set(done as u64, all as u64);
        });
        meter.clear();
        match found {
            Ok(lines) => {
                for line in lines {
                    // After an interruption some of the oracle's are there.
                    if !matches!(line, Line::Oracle(_)) || !output.has(|known| *known == line) {
                        output.push(line)?;
                    }
                }
            }
            Err(EvalError::Engine(error @ EngineError::Cancelled { .. })) => {
                return Err(error.into());
            }
            Err(error) => output.skip(format!("{} tokens", show::tokens(length)), error)?,
        }
    }
    output.finish(args.plot.as_deref())
}
