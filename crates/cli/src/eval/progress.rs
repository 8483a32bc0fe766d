//! Progress of a run: rows, and the time that is left by the prompt tokens still to compute.
//!
//! A bar on a terminal; plain lines at most every fifteen seconds elsewhere.

use std::{
    io::{IsTerminal, stderr},
    ops::ControlFlow,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use sparse_accelerate_eval::RunProgress;

const PLAIN_EVERY: Duration = Duration::from_secs(15);
/// Before this, a rate says nothing.
const SETTLED: Duration = Duration::from_secs(2);

/// The progress of one run.
#[derive(Debug)]
pub(crate) struct RunMeter {
    bar: Option<ProgressBar>,
    start: Instant,
    last_line: Instant,
}

impl RunMeter {
    /// Begins; nothing is drawn yet.
    pub(crate) fn new() -> Self {
        let bar = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("[{bar:32}] {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(0).with_style(style.progress_chars("=> "))
        });
        let now = Instant::now();
        Self {
            bar,
            start: now,
            last_line: now,
        }
    }

    /// Shows how far the run is.
    pub(crate) fn update(&mut self, progress: &RunProgress<'_>) -> ControlFlow<()> {
        let text = || {
            format!(
                "{}/{} rows{}: {}",
                progress.rows,
                progress.of,
                left(self.start.elapsed(), progress.done, progress.total),
                progress.what
            )
        };
        match &self.bar {
            Some(bar) => {
                bar.set_length(progress.total);
                bar.set_position(progress.done);
                bar.set_message(text());
            }
            None if self.last_line.elapsed() >= PLAIN_EVERY => {
                eprintln!("{}", text());
                self.last_line = Instant::now();
            }
            None => {}
        }
        ControlFlow::Continue(())
    }

    /// Removes the bar and says how long it took.
    pub(crate) fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        eprintln!("measured in {}", clock(self.start.elapsed()));
    }
}

/// `, 12:34 left`, once there is a rate.
fn left(elapsed: Duration, done: u64, total: u64) -> String {
    if elapsed < SETTLED || done == 0 {
        return String::new();
    }
    let rest = elapsed.as_secs_f64() * (total.saturating_sub(done)) as f64 / done as f64;
    format!(", {} left", clock(Duration::from_secs_f64(rest)))
}

/// `0:42`, `12:34`, `1:02:03`.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_follows_the_tokens() {
        assert_eq!(left(Duration::from_secs(30), 100, 300), ", 1:00 left");
        assert_eq!(left(Duration::from_secs(30), 0, 300), "");
        assert_eq!(clock(Duration::from_secs(3723)), "1:02:03");
    }
}
