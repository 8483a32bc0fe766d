//! `report`: run files of `bench` and `eval` as tables, plots and one page.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::Args;
use sparse_accelerate_report::{Run, html, markdown, plots, tables};

use crate::{exit::usage, output::print_text};

const EXAMPLES: &str = "\
Examples:
  sparse-accelerate report ttft.jsonl                              tables on the terminal
  sparse-accelerate report ttft.jsonl needle.jsonl --out page.html    one page, opened without a network
  sparse-accelerate report *.jsonl --plots figures                 every plot as SVG and PNG
  sparse-accelerate report ttft.jsonl --markdown                   the same tables as Markdown

A run file is what bench and eval write with --out, or print with --json.";

/// Arguments of `report`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReportArgs {
    /// Run files
    #[arg(value_name = "FILE.jsonl", required = true)]
    files: Vec<PathBuf>,

    /// Write one HTML page with tables and plots
    #[arg(long, value_name = "FILE.html")]
    out: Option<PathBuf>,

    /// Write every plot into this folder, as SVG and PNG
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,

    /// Print Markdown instead of tables for a terminal
    #[arg(long)]
    markdown: bool,

    /// Title of the page
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "sparse-accelerate: results"
    )]
    title: String,
}

/// Runs the command.
pub(crate) fn run(args: &ReportArgs) -> Result<()> {
    let mut runs = Vec::new();
    for file in &args.files {
        if !file.is_file() {
            return Err(usage(format!("{}: no such file", file.display())));
        }
        runs.push(Run::read(file)?);
    }
    if let Some(path) = &args.out {
        fs::write(path, html(&args.title, &runs)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("page: {}", path.display());
    }
    if let Some(folder) = &args.plots {
        write_plots(&runs, folder)?;
    }
    if args.markdown {
        return print_text(&markdown(&runs));
    }
    if args.out.is_none() && args.plots.is_none() {
        for run in &runs {
            print_text(&format!("== {}\n\n", run.title()))?;
            for table in tables(run) {
                print_text(&format!("{}\n", table.text()))?;
            }
        }
    }
    Ok(())
}

/// Writes every plot of the runs into a folder, as SVG and PNG.
pub(crate) fn write_plots(runs: &[Run], folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut names: Vec<String> = Vec::new();
    for plot in runs.iter().flat_map(plots) {
        // Two runs of one model have plots of one name.
        let same = names.iter().filter(|name| **name == plot.name).count();
        let name = match same {
            0 => plot.name.clone(),
            n => format!("{}-{}", plot.name, n + 1),
        };
        names.push(plot.name.clone());
        for (extension, bytes) in [("svg", plot.svg()?.into_bytes()), ("png", plot.png()?)] {
            let path = folder.join(format!("{name}.{extension}"));
            fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    eprintln!("plots: {} in {}", names.len(), folder.display());
    Ok(())
}
