//! Rows: printed as they come, written as JSON at the end.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// One measured case.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// What ran.
    pub(crate) case: String,
    /// Prompt length.
    pub(crate) len: usize,
    /// Share of the causal blocks kept.
    pub(crate) density: f64,
    /// Tier and tile.
    pub(crate) plan: String,
    /// Device milliseconds, median and least.
    pub(crate) median_ms: f64,
    /// Least of the runs.
    pub(crate) min_ms: f64,
    /// Useful operations, `4 d` per kept causal pair, over the median time.
    pub(crate) tflops: f64,
    /// Relative L2 error against f64 attention on sampled rows.
    pub(crate) error: f64,
    /// Seconds until the first result, compiling included.
    pub(crate) first_s: f64,
}

/// All rows of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    device: String,
    command: Vec<String>,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(device: String) -> Self {
        Self {
            device,
            command: std::env::args().skip(1).collect(),
            rows: Vec::new(),
        }
    }

    /// Prints a row and keeps it.
    pub(crate) fn add(&mut self, row: Row) {
        println!(
            "{:<16} {:>7} density {:.3}  {:>9.3} ms (min {:>9.3})  {:>6.1} TFLOP/s  error {:.6}  first {:.1} s  {}",
            row.case,
            row.len,
            row.density,
            row.median_ms,
            row.min_ms,
            row.tflops,
            row.error,
            row.first_s,
            row.plan
        );
        self.rows.push(row);
    }

    /// Writes the rows, if a file was asked for.
    pub(crate) fn write(&self, path: Option<&Path>) -> Result<()> {
        let Some(path) = path else { return Ok(()) };
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}
