//! Rows: printed and saved as they come, written as one JSON file at the end.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use crate::save::{Folder, Row, write_whole};

/// Arguments that say where to write, which is no part of what was measured.
const WHERE: [&str; 2] = ["--out", "--save"];

/// All rows of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    device: String,
    command: Vec<String>,
    rows: Vec<Row>,
    #[serde(skip)]
    folder: Option<Folder>,
}

impl Report {
    pub(crate) fn new(device: String, folder: Option<Folder>) -> Self {
        if let Some(folder) = &folder {
            println!("saving in {}", folder.path().display());
        }
        Self {
            device,
            command: command(std::env::args().skip(1)),
            rows: Vec::new(),
            folder,
        }
    }

    /// The command, as rows name it.
    pub(crate) fn command(&self) -> String {
        self.command.join(" ")
    }

    /// Prints a row, keeps it, and saves it if there is a folder.
    pub(crate) fn add(&mut self, row: Row) -> Result<()> {
        println!(
            "{:<16} {:>7} density {:.3}  {:>9.3} ms (min {:>9.3})  {:>6.1} TFLOP/s  error {:.6}  first {:.1} s  {}{}",
            row.case,
            row.len,
            row.density,
            row.median_ms,
            row.min_ms,
            row.tflops.unwrap_or(f64::NAN),
            row.error.unwrap_or(f64::NAN),
            row.first_s.unwrap_or(f64::NAN),
            row.kernel,
            row.choice
                .as_ref()
                .map(|c| format!(", chosen by {c}"))
                .unwrap_or_default(),
        );
        if let Some(folder) = &self.folder {
            folder.append(&row)?;
        }
        self.rows.push(row);
        Ok(())
    }

    /// Writes the rows, if a file was asked for.
    pub(crate) fn write(&self, path: Option<&Path>) -> Result<()> {
        let Some(path) = path else { return Ok(()) };
        write_whole(path, &(serde_json::to_string_pretty(self)? + "\n"))
    }
}

/// The arguments without those that say where to write.
fn command(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut kept = Vec::new();
    let mut is_file = false;
    for argument in arguments {
        let name = argument.split('=').next().unwrap_or_default();
        if std::mem::take(&mut is_file) {
            continue;
        }
        match WHERE.contains(&name) {
            // `--save` takes its folder after `=` alone.
            true => is_file = argument == "--out",
            false => kept.push(argument),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::command;

    #[test]
    fn a_command_does_not_say_where_it_was_saved() {
        let of = |line: &str| command(line.split(' ').map(Into::into)).join(" ");
        assert_eq!(of("dense --out /a/b.json --lens 64"), "dense --lens 64");
        assert_eq!(of("--save dense --lens 64"), "dense --lens 64");
        assert_eq!(of("dense --save=/a --out=/b --all"), "dense --all");
    }
}
