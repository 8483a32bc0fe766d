//! The demo's result: dense and sparse side by side, as a table or as JSON.
//!
//! The error is that of the hidden state the first answer token is read from:
//! `|sparse - dense| / |dense|`, Euclidean.

use serde::Serialize;
use sparse_accelerate::Pattern;
use sparse_accelerate_engine::Generation;

use crate::{demo_spec::Spec, load::Opened, summary};

/// Characters of a column; longer answers wrap.
const COLUMN: usize = 36;

/// Both runs and what they were about.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    question: String,
    expect: Vec<String>,
    device: String,
    device_reason: String,
    dtype: String,
    chunk: usize,
    pattern: Pattern,
    pub(crate) dense: Side,
    sparse: Side,
    /// Dense time to first token over sparse.
    speed_up: f64,
    /// Relative L2 error of the last hidden state, sparse against dense.
    hidden_error: f64,
}

/// One run.
#[derive(Debug, Serialize)]
pub(crate) struct Side {
    /// Whether the answer holds an expected text.
    pub(crate) found: bool,
    #[serde(flatten)]
    generation: Generation,
}

impl Report {
    /// Compares two runs of one prompt.
    pub(crate) fn new(
        spec: &Spec,
        opened: &Opened,
        pattern: Pattern,
        dense: Generation,
        sparse: Generation,
    ) -> Self {
        Self {
            question: spec.question.clone(),
            expect: spec.expect.clone(),
            device: opened.target.devices.names(),
            device_reason: opened.target.devices.reason(),
            dtype: opened.target.dtype.to_string(),
            chunk: opened.target.chunk,
            pattern,
            speed_up: dense.timings.ttft_s / sparse.timings.ttft_s,
            hidden_error: relative_error(&sparse.last_hidden, &dense.last_hidden),
            dense: Side::new(spec, dense),
            sparse: Side::new(spec, sparse),
        }
    }

    /// The table.
    pub(crate) fn render(&self) -> String {
        let (d, s) = (&self.dense.generation, &self.sparse.generation);
        let mut table = Table::default();
        table.row("", "dense", &format!("sparse ({})", self.pattern.name()));
        table.row("answer", d.text.trim(), s.text.trim());
        table.row(
            "found expected",
            yes(self.dense.found),
            yes(self.sparse.found),
        );
        table.row(
            "prompt tokens",
            &d.prompt_tokens.to_string(),
            &s.prompt_tokens.to_string(),
        );
        table.row("time to first token", &seconds(d), &seconds(s));
        table.row("speed-up", "1.00x", &format!("{:.2}x", self.speed_up));
        table.row("pairs computed", &percent(d.density), &percent(s.density));
        table.row(
            "hidden-state error",
            "0",
            &format!("{:.4}", self.hidden_error),
        );
        table.row(
            "peak memory",
            &summary::measured(&d.memory.measured),
            &summary::measured(&s.memory.measured),
        );
        format!(
            "\nquestion: {}\nexpected: {}\n\n{}",
            self.question,
            self.expect.join(" or "),
            table.text
        )
    }
}

impl Side {
    fn new(spec: &Spec, generation: Generation) -> Self {
        Self {
            found: spec.found_in(&generation.text),
            generation,
        }
    }
}

fn yes(on: bool) -> &'static str {
    if on { "yes" } else { "no" }
}

fn seconds(generation: &Generation) -> String {
    format!("{:.3} s", generation.timings.ttft_s)
}

fn percent(density: f64) -> String {
    format!("{:.1} %", 100.0 * density)
}

fn relative_error(got: &[f32], expected: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let difference: f64 = got.iter().zip(expected).map(|(a, b)| square(a - b)).sum();
    let size: f64 = expected.iter().map(|x| square(*x)).sum();
    (difference / size).sqrt()
}

/// Three columns of text.
#[derive(Debug, Default)]
struct Table {
    text: String,
}

impl Table {
    fn row(&mut self, name: &str, left: &str, right: &str) {
        let (left, right) = (wrap(left), wrap(right));
        for line in 0..left.len().max(right.len()) {
            let name = if line == 0 { name } else { "" };
            let cell = |cells: &[String]| cells.get(line).cloned().unwrap_or_default();
            let row = format!("{name:<20} {:<COLUMN$}  {}", cell(&left), cell(&right));
            self.text.push_str(row.trim_end());
            self.text.push('\n');
        }
    }
}

/// Lines of at most `COLUMN` characters, broken at spaces where there are any.
fn wrap(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let length = |s: &str| s.chars().count();
        let full = lines
            .last()
            .is_some_and(|l| !l.is_empty() && length(l) + 1 + length(word) > COLUMN);
        if full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_relative_to_the_dense_state() {
        assert_eq!(relative_error(&[3.0, 4.0], &[3.0, 4.0]), 0.0);
        assert!((relative_error(&[0.0, 0.0], &[3.0, 4.0]) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn rows_wrap_and_stay_in_their_columns() {
        let mut table = Table::default();
        let long = "word ".repeat(20);
        table.row("answer", &long, "short");
        let lines: Vec<_> = table.text.lines().collect();
        assert!(
            lines.len() > 2
                && lines
                    .iter()
                    .all(|l| l.len() <= 20 + 1 + COLUMN + 2 + COLUMN)
        );
        assert!(lines[0].starts_with("answer") && lines[0].ends_with("short"));
    }
}
