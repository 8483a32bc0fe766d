//! One run file, read whole and checked: a header, then rows.

use std::path::{Path, PathBuf};

use crate::{
    error::ReportError,
    record::{self, AnswerRow, Header, Line},
};

/// A run: what ran, and what it gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The file it is from.
    pub path: PathBuf,
    /// Header: the command, the model and the device.
    pub header: Header,
    /// The rows, in the order they were measured.
    pub rows: Vec<Line>,
}

impl Run {
    /// Reads a run file; a last line that was torn off is left out.
    ///
    /// # Errors
    /// A file that cannot be read, is empty, has no header at the start or another schema, a damaged
    /// line, or a second header.
    pub fn read(path: &Path) -> Result<Self, ReportError> {
        let (header, rows) = record::read(path)?;
        let path = path.to_path_buf();
        let second = |line: &Line| matches!(line, Line::Header(_));
        match rows.iter().position(second) {
            Some(at) => Err(ReportError::Mixed { path, line: at + 2 }),
            None => Ok(Self { path, header, rows }),
        }
    }

    /// `bench ttft of Llama-3.1-8B on cuda:0: ...`.
    pub fn title(&self) -> String {
        let model = self.header.model.as_ref();
        let of = model.map_or(String::new(), |model| format!(" of {}", model.name));
        format!("{}{of}", self.header.command)
    }

    /// Model and device, for titles of plots.
    pub(crate) fn subject(&self) -> String {
        let model = self.header.model.as_ref();
        let model = model.map_or("no model", |model| model.name.as_str());
        // The device's name without the reason it was taken.
        let device = self.header.device.split(", ").next().unwrap_or_default();
        format!("{model}, {device}")
    }
}

/// Rows of one kind out of `rows`, as an iterator.
macro_rules! of_kind {
    ($rows:expr, $kind:ident) => {
        $rows.iter().filter_map(|line| match line {
            $crate::record::Line::$kind(row) => Some(row),
            _ => None,
        })
    };
}
pub(crate) use of_kind;

/// The distinct values, in the order they first stand.
pub fn distinct<T: PartialEq>(values: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut seen: Vec<T> = Vec::new();
    for value in values {
        if !seen.contains(&value) {
            seen.push(value);
        }
    }
    seen
}

/// Mean over tasks of the mean score of each, so that tasks weigh alike.
pub fn task_mean(rows: &[&AnswerRow]) -> f64 {
    let tasks = distinct(rows.iter().map(|row| row.task.as_str()));
    mean(tasks.iter().map(|task| {
        let of_task = rows.iter().filter(|row| row.task == **task);
        mean(of_task.map(|row| row.score))
    }))
}

/// Mean; NaN of nothing.
pub fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0u32);
    for value in values {
        sum += value;
        count += 1;
    }
    sum / f64::from(count)
}
