//! The facts and tables of runs as Markdown.

use std::fmt::Write;

use super::facts::facts;
use crate::{run::Run, tables};

/// Runs as Markdown, a section each under headings of the second level.
pub fn markdown(runs: &[Run]) -> String {
    let mut out = String::new();
    for run in runs {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "## {}\n", run.title());
        for (name, value) in facts(run) {
            let _ = match name {
                "again with" => writeln!(out, "- {name}: `{value}`"),
                _ => writeln!(out, "- {name}: {value}"),
            };
        }
        out.push('\n');
        for table in tables(run) {
            out += &table.markdown();
            out.push('\n');
        }
    }
    out.truncate(out.trim_end().len());
    out + "\n"
}
