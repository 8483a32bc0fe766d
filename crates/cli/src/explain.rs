//! `--explain`: what every head chose, and why.
//!
//! On standard error a table for each chunk. With a file also JSON, a list of chunks
//!
//! ```json
//! [{"tokens": {"start": 0, "end": 8192},
//!   "heads": [{"layer": 0, "sequence": 0, "head": 0, "choice": "hybrid", "why": "cheapest",
//!              "predicted_recall": 0.961, "recall": 0.972, "error": 0.0, "density": 0.11, "columns": 412,
//!              "slashes": 31, "blocks": 95, "costs": [8256.0, null, null, null, 1410.5]}]}]
//! ```
//!
//! (`costs` are those of dense, triangular, interval-slash, block-cluster and hybrid, `null` for what was
//! not allowed or would keep too little), and beside it the same as a plot, SVG and PNG: layer by head,
//! density and recall over all chunks, coloured by the pattern of the heaviest.

use std::{collections::BTreeMap, fmt::Write, path::PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use sparse_accelerate::{Choice, Decision, HeadRecord, select::Why};
use sparse_accelerate_engine::ChunkSelection;
use sparse_accelerate_report::{HeadChoice, choices};

use crate::{
    eval::table::{head, table},
    exit::usage,
    output::write_whole,
    summary,
};

/// The flag.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Say what every head chose and why; with =FILE.json also as JSON, and beside it as a plot
    /// (FILE.svg, FILE.png)
    #[arg(
        long,
        value_name = "FILE.json",
        num_args = 0..=1,
        require_equals = true,
        help_heading = "Output"
    )]
    explain: Option<Option<PathBuf>>,
}

impl ExplainArgs {
    /// Refuses a file of another kind, and a folder that is not there.
    pub(crate) fn check(&self) -> Result<()> {
        let Some(Some(path)) = &self.explain else {
            return Ok(());
        };
        let shown = path.display();
        if path.extension().is_none_or(|extension| extension != "json") {
            return Err(usage(format!(
                "--explain={shown}: the name must end in .json; a plot is put beside it as .svg and .png"
            )));
        }
        match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
                Err(usage(format!(
                    "--explain={shown}: there is no folder {}; make it first",
                    folder.display()
                )))
            }
            _ => Ok(()),
        }
    }

    /// Prints and writes what was asked for; `subject` is the model and the device.
    pub(crate) fn show(
        &self,
        chunks: &[ChunkSelection],
        decisions: &[Decision],
        subject: &str,
    ) -> Result<()> {
        let Some(file) = &self.explain else {
            return Ok(());
        };
        eprint!("\n{}", text(chunks, decisions));
        let Some(path) = file else {
            return Ok(());
        };
        let mut json = serde_json::to_vec_pretty(chunks).context("cannot write JSON")?;
        json.push(b'\n');
        write_whole(path, &json)?;
        eprintln!("choices: {}", path.display());
        if chunks.is_empty() {
            return Ok(());
        }
        let name = path.file_stem().unwrap_or_default();
        let plot = choices(
            name.to_string_lossy().into_owned(),
            "What heads chose".into(),
            subject.into(),
            "head",
            &over_chunks(chunks),
        );
        for (extension, bytes) in [("svg", plot.svg()?.into_bytes()), ("png", plot.png()?)] {
            let path = path.with_extension(extension);
            write_whole(&path, &bytes)?;
            eprintln!("plot: {}", path.display());
        }
        Ok(())
    }
}

/// A table for each chunk, and how many heads chose what.
fn text(chunks: &[ChunkSelection], decisions: &[Decision]) -> String {
    if chunks.is_empty() {
        let decision = summary::decision(decisions);
        return format!("no head chose its keys: {decision}\n");
    }
    let titles = head(&[
        "layer, head",
        "pattern",
        "density",
        "time / dense",
        "recall predicted",
        "measured",
        "error",
        "columns",
        "slashes",
        "blocks",
        "reason",
    ]);
    let mut out = String::new();
    for chunk in chunks {
        let rows: Vec<Vec<String>> = chunk.heads.iter().map(row).collect();
        let counts: Vec<String> = Choice::ALL
            .into_iter()
            .chain([Choice::Index, Choice::GroupBlocks])
            .filter_map(|choice| {
                let of = |head: &&HeadRecord| head.choice == choice;
                let count = chunk.heads.iter().filter(of).count();
                (count > 0).then(|| format!("{count} {}", choice.name()))
            })
            .collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "tokens {} to {}: {}\n{}",
            chunk.tokens.start,
            chunk.tokens.end,
            counts.join(", "),
            table(&titles, &rows)
        );
    }
    out
}

fn row(head: &HeadRecord) -> Vec<String> {
    let share = |value: f32| match value.is_finite() {
        true => format!("{value:.3}"),
        false => "-".into(),
    };
    vec![
        format!("{}, {}", head.layer, head.head),
        head.choice.name().into(),
        share(head.density),
        share(head.time_over_dense().unwrap_or(f32::NAN)),
        share(head.predicted_recall),
        share(head.recall),
        match head.choice == Choice::GroupBlocks || head.why == Why::ErrorAboveLimit {
            true => share(head.error),
            false => "-".into(),
        },
        head.columns.to_string(),
        head.slashes.to_string(),
        head.blocks.to_string(),
        head.why.to_string(),
    ]
}

/// Causal pairs of a chunk, for one head.
fn pairs(chunk: &ChunkSelection) -> f64 {
    let up_to = |end: usize| end as f64 * (end as f64 + 1.0) / 2.0;
    up_to(chunk.tokens.end) - up_to(chunk.tokens.start)
}

/// Every head over all chunks, weighted by their causal pairs; the pattern is that of the heaviest.
fn over_chunks(chunks: &[ChunkSelection]) -> Vec<HeadChoice> {
    struct Sums {
        choice: Choice,
        heaviest: f64,
        density: f64,
        recall: f64,
        pairs: f64,
    }
    let mut heads: BTreeMap<(usize, usize), Sums> = BTreeMap::new();
    for chunk in chunks {
        let weight = pairs(chunk);
        for record in &chunk.heads {
            let at = (record.layer, record.head);
            let sums = heads.entry(at).or_insert(Sums {
                choice: record.choice,
                heaviest: 0.0,
                density: 0.0,
                recall: 0.0,
                pairs: 0.0,
            });
            if weight > sums.heaviest {
                (sums.choice, sums.heaviest) = (record.choice, weight);
            }
            // What was made dense keeps everything, whatever it kept before.
            let recall = match record.why {
                Why::MeasuredBelowFloor | Why::ErrorAboveLimit => 1.0,
                _ => f64::from(record.recall),
            };
            sums.density += weight * f64::from(record.density);
            sums.recall += weight * recall;
            sums.pairs += weight;
        }
    }
    let choice = |((layer, head), sums): ((usize, usize), Sums)| HeadChoice {
        layer,
        head,
        choice: sums.choice.name().into(),
        density: sums.density / sums.pairs,
        recall: sums.recall / sums.pairs,
    };
    heads.into_iter().map(choice).collect()
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
