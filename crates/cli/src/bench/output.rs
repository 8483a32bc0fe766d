//! Outputs of rows: a run file, JSON lines, tables, a plot.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::Args;
use sparse_accelerate_report::{
    Run, plots,
    record::{Header, Line, RunFile, SkippedRow},
    tables,
};

use crate::{exit::usage, output::print_text, run_file::About};

/// Outputs besides the tables.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// JSON lines on standard output instead of tables: a run file, for `report`
    #[arg(long)]
    json: bool,

    /// Append rows to this run file; the same command goes on where it was interrupted
    #[arg(long, value_name = "FILE.jsonl")]
    out: Option<PathBuf>,
}

/// The rows of one run, old and new.
pub(super) struct Output {
    json: bool,
    file: Option<RunFile>,
    path: PathBuf,
    header: Header,
    rows: Vec<Line>,
}

impl Output {
    /// Opens the run file, if one is wanted, with the rows it already has.
    pub(super) fn new(args: &OutputArgs, about: About) -> Result<Self> {
        let header = about.header();
        let (mut file, mut rows) = (None, Vec::new());
        if let Some(path) = &args.out {
            let (opened, found) = RunFile::create_or_resume(path, &header)?;
            if !found.is_empty() {
                eprintln!("{}: goes on after {} rows", path.display(), found.len());
            }
            (file, rows) = (Some(opened), found);
        }
        let output = Self {
            json: args.json,
            file,
            path: args.out.clone().unwrap_or_default(),
            header,
            rows,
        };
        output.print(&Line::Header(Box::new(output.header.clone())))?;
        for row in &output.rows {
            output.print(row)?;
        }
        Ok(output)
    }

    /// Tells whether a row is already there.
    pub(super) fn has(&self, wanted: impl Fn(&Line) -> bool) -> bool {
        self.rows.iter().any(wanted)
    }

    /// The first row that is wanted.
    pub(super) fn find(&self, wanted: impl Fn(&Line) -> bool) -> Option<Line> {
        self.rows.iter().find(|row| wanted(row)).cloned()
    }

    /// How many rows are wanted.
    pub(super) fn count(&self, wanted: impl Fn(&Line) -> bool) -> usize {
        self.rows.iter().filter(|row| wanted(row)).count()
    }

    /// Takes a finished row.
    pub(super) fn push(&mut self, row: Line) -> Result<()> {
        if let Some(file) = &mut self.file {
            file.append(&row)?;
        }
        self.print(&row)?;
        self.rows.push(row);
        Ok(())
    }

    /// Takes something that was not done, once.
    pub(super) fn skip(&mut self, what: String, reason: impl ToString) -> Result<()> {
        let reason = reason.to_string();
        eprintln!("not run: {what}: {reason}");
        let row = Line::Skipped(SkippedRow { what, reason });
        match self.rows.contains(&row) {
            true => Ok(()),
            false => self.push(row),
        }
    }

    /// Prints tables unless rows were printed, and gives the exit code: 1 where nothing was measured.
    pub(super) fn finish(self, plot: Option<&Path>) -> Result<ExitCode> {
        let measured = self.has(|row| !matches!(row, Line::Skipped(_)));
        let run = Run {
            path: self.path,
            header: self.header,
            rows: self.rows,
        };
        if !self.json {
            let shown: Vec<String> = tables(&run).iter().map(|table| table.text()).collect();
            print_text(&shown.join("\n"))?;
        }
        if let Some(path) = plot {
            draw(&run, path)?;
        }
        if !measured {
            eprintln!("error: nothing was measured; the reasons stand above");
            return Ok(ExitCode::FAILURE);
        }
        Ok(ExitCode::SUCCESS)
    }

    fn print(&self, row: &Line) -> Result<()> {
        if !self.json {
            return Ok(());
        }
        let text = serde_json::to_string(row).context("cannot write a row as JSON")?;
        print_text(&format!("{text}\n"))
    }
}

/// Refuses a plot that no format is known for, before anything is measured.
pub(super) fn check_plot(path: Option<&Path>) -> Result<()> {
    let Some(path) = path else {
        return Ok(());
    };
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("svg" | "png") => Ok(()),
        _ => Err(usage(format!(
            "--plot {}: the name must end in .svg or .png",
            path.display()
        ))),
    }
}

/// The run's first plot.
fn draw(run: &Run, path: &Path) -> Result<()> {
    let Some(plot) = plots(run).into_iter().next() else {
        eprintln!("--plot: there is nothing to draw");
        return Ok(());
    };
    let bytes = match path.extension().is_some_and(|extension| extension == "png") {
        true => plot.png()?,
        false => plot.svg()?.into_bytes(),
    };
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
