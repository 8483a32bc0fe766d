//! Progress on standard error: a bar on a terminal, plain lines elsewhere.
//!
//! Plain lines come at most every two seconds, so that a log tells what is happening without being
//! flooded; work that ends sooner prints only its result.

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use sparse_accelerate_engine::PrefillProgress;

const PLAIN_EVERY: Duration = Duration::from_secs(2);

/// Unit of the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Bytes.
    Bytes,
    /// Prompt tokens.
    Tokens,
    /// Tensors.
    Tensors,
    /// Blocks of query rows.
    Blocks,
    /// Layers.
    Layers,
}

/// The progress of one piece of work.
#[derive(Debug)]
pub(crate) struct Meter {
    label: String,
    unit: Unit,
    bar: Option<ProgressBar>,
    start: Instant,
    last_line: Instant,
}

impl Meter {
    /// Begins; nothing is drawn yet.
    pub(crate) fn new(label: impl Into<String>, unit: Unit) -> Self {
        let label = label.into();
        let bar = stderr().is_terminal().then(|| {
            let numbers = match unit {
                Unit::Bytes => "{bytes}/{total_bytes}",
                Unit::Tokens => "{pos}/{len} tokens, {per_sec}",
                Unit::Tensors => "{pos}/{len} tensors",
                Unit::Blocks => "{pos}/{len} query blocks",
                Unit::Layers => "{pos}/{len} layers",
            };
            let template = format!("{{msg:24}} [{{bar:32}}] {numbers}");
            let style = ProgressStyle::with_template(&template)
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(0)
                .with_style(style.progress_chars("=> "))
                .with_message(label.clone())
        });
        let now = Instant::now();
        Self {
            label,
            unit,
            bar,
            start: now,
            last_line: now,
        }
    }

    /// `done` of `total`.
    pub(crate) fn set(&mut self, done: u64, total: u64) {
        match &self.bar {
            Some(bar) => {
                bar.set_length(total);
                bar.set_position(done);
            }
            None if self.last_line.elapsed() >= PLAIN_EVERY && done < total => {
                self.last_line = Instant::now();
                let percent = 100.0 * done as f64 / total as f64;
                eprintln!("{}: {percent:.0}% ({})", self.label, self.count(done));
            }
            None => {}
        }
    }

    /// Removes the bar and says how much was done, in how long.
    pub(crate) fn finish(self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let seconds = self.start.elapsed().as_secs_f64();
        eprintln!("{}: {} in {seconds:.1} s", self.label, self.count(done));
    }

    /// Removes the bar; what was done is said elsewhere.
    pub(crate) fn clear(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn count(&self, done: u64) -> String {
        match self.unit {
            Unit::Bytes => sparse_accelerate_engine::memory::Bytes(done).to_string(),
            Unit::Tokens => format!("{done} tokens"),
            Unit::Tensors => format!("{done} tensors"),
            Unit::Blocks => format!("{done} query blocks"),
            Unit::Layers => format!("{done} layers"),
        }
    }
}

/// The progress of a prefill: says at once that it began, and removes itself at the end so that the
/// answer can follow.
#[derive(Debug)]
pub(crate) struct PromptMeter {
    label: String,
    meter: Option<Meter>,
}

impl PromptMeter {
    /// Begins; nothing is drawn yet.
    pub(crate) fn new(label: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            meter: None,
        }
    }

    /// Shows how far the prefill is.
    pub(crate) fn update(&mut self, progress: PrefillProgress) {
        let (done, total) = (progress.done as u64, progress.total as u64);
        let mut meter = self.meter.take().unwrap_or_else(|| {
            if !stderr().is_terminal() {
                eprintln!("{}: {total} tokens ...", self.label);
            }
            Meter::new(self.label.clone(), Unit::Tokens)
        });
        meter.set(done, total);
        if done == total {
            meter.finish(done);
        } else {
            self.meter = Some(meter);
        }
    }
}
