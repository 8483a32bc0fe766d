//! The metadata and tables of runs as Markdown.

use std::fmt::Write;

use super::metadata::metadata;
use crate::{run::Run, tables};

/// Runs as Markdown, a section each under headings of the second level.
pub fn markdown(runs: &[Run]) -> String {
    let sections: Vec<String> = runs.iter().map(|run| section(run, None)).collect();
    sections.join("\n")
}

/// One run; `file` is a link to its file.
pub(super) fn section(run: &Run, file: Option<&str>) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "## {}\n", run.title());
    if let Some(file) = file {
        let _ = writeln!(out, "- file: {file}");
    }
    for (name, value) in metadata(run) {
        let _ = match name {
            "again with" => writeln!(out, "- {name}: `{value}`"),
            _ => writeln!(out, "- {name}: {value}"),
        };
    }
    for table in tables(run) {
        let _ = write!(out, "\n{}", table.markdown());
    }
    out
}
