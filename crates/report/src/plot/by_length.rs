//! Quality against length, one line an attention: scores of answers, bits per byte of a text.

use std::f64::consts::LN_2;

use super::{
    Kind, Plot,
    lines::{Axis, Lines, Series, extent},
    of_run::{file_name, model},
};
use crate::{
    record::{AnswerRow, PerplexityRow},
    run::{Run, distinct, mean, of_kind},
    show,
};

/// Steps between ticks, the finest that gives no more than [`MOST_TICKS`].
const STEPS: [f64; 13] = [
    0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0,
];
const MOST_TICKS: f64 = 9.0;

/// Mean score of all answers of a length.
pub(super) fn scores(run: &Run) -> Option<Plot> {
    let rows: Vec<&AnswerRow> = of_kind!(run.rows, Answer).collect();
    let score = |attention: &str, length: usize| {
        let own = rows
            .iter()
            .filter(|row| row.attention == attention && row.length == length);
        100.0 * mean(own.map(|row| row.score))
    };
    let attentions = distinct(rows.iter().map(|row| row.attention.as_str()));
    let lengths = rows.iter().map(|row| row.length);
    draw(
        run,
        ("scores", "Mean score of all tasks", "mean score, %"),
        attentions,
        lengths,
        score,
    )
}

/// Bits per byte of the scored parts of all windows of a length.
pub(super) fn bits(run: &Run) -> Option<Plot> {
    let rows: Vec<&PerplexityRow> = of_kind!(run.rows, Perplexity).collect();
    let bits = |attention: &str, length: usize| {
        let own = |row: &&&PerplexityRow| row.attention == attention && row.length == length;
        let nll: f64 = rows.iter().filter(own).map(|row| row.nll).sum();
        let bytes: usize = rows.iter().filter(own).map(|row| row.bytes).sum();
        nll / (LN_2 * bytes as f64)
    };
    let attentions = distinct(rows.iter().map(|row| row.attention.as_str()));
    let lengths = rows.iter().map(|row| row.length);
    draw(
        run,
        (
            "perplexity",
            "Bits per byte of the scored text",
            "bits per byte",
        ),
        attentions,
        lengths,
        bits,
    )
}

fn draw(
    run: &Run,
    (name, title, label): (&str, &str, &str),
    attentions: Vec<&str>,
    lengths: impl Iterator<Item = usize>,
    value: impl Fn(&str, usize) -> f64,
) -> Option<Plot> {
    let mut lengths = distinct(lengths);
    lengths.sort_unstable();
    let series: Vec<Series> = attentions
        .into_iter()
        .map(|attention| Series {
            name: attention.into(),
            points: lengths
                .iter()
                .map(|&length| (length as f64, value(attention, length)))
                .filter(|(_, value)| value.is_finite())
                .collect(),
        })
        .collect();
    let values = series.iter().flat_map(|s| s.points.iter().map(|p| p.1));
    let y = linear(label, values)?;
    Some(Plot {
        name: file_name(&[name, model(run)]),
        title: title.into(),
        subtitle: run.subject(),
        kind: Kind::Lines(Lines {
            x: Axis {
                label: "tokens".into(),
                logarithmic: true,
                ticks: lengths
                    .iter()
                    .map(|&length| (length as f64, show::tokens(length)))
                    .collect(),
            },
            y,
            series,
            joined: true,
            falling: false,
        }),
    })
}

/// A linear axis with round ticks over values; `None` without any.
fn linear(label: &str, values: impl Iterator<Item = f64>) -> Option<Axis> {
    let (low, high) = extent(values);
    if low > high {
        return None;
    }
    let fits = |step: &f64| (high - low) / step <= MOST_TICKS;
    let step = STEPS.into_iter().find(fits).unwrap_or(100.0);
    let digits = if step < 0.01 {
        3
    } else if step < 1.0 {
        2
    } else {
        0
    };
    let first = (low / step).floor() as i64 - 1;
    let last = (high / step).ceil() as i64 + 1;
    let tick = |n: i64| {
        let value = n as f64 * step;
        (value, format!("{value:.digits$}"))
    };
    Some(Axis {
        label: label.into(),
        logarithmic: false,
        ticks: (first..=last).map(tick).collect(),
    })
}
