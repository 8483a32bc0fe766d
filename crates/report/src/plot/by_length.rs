//! Quality against length, one line an attention: scores of answers, loss of a text. Where dense is there too, what
//! is drawn is the difference to it on the same questions or windows, with its 95 % interval.

use std::f64::consts::LN_2;

use super::{
    Kind, Plot,
    lines::{Axis, Lines, Series, extent},
    of_run::{file_name, model},
};
use crate::{
    paired,
    record::{AnswerRow, PerplexityRow},
    run::{Run, distinct, mean, of_kind},
    show,
};

/// Steps between ticks, the finest that gives no more than [`MOST_TICKS`].
const STEPS: [f64; 13] = [
    0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0,
];
const MOST_TICKS: f64 = 9.0;
/// Factor of the length from the place of one attention's points to that of the next one's.
const ASIDE: f64 = 1.03;

/// A value of a length and an attention, and half of its interval where there is one.
type Value = Option<(f64, Option<f64>)>;

/// Mean score of all answers of a length; where dense answered too, the other attentions' minus its.
pub(super) fn scores(run: &Run) -> Option<Plot> {
    let rows: Vec<&AnswerRow> = of_kind!(run.rows, Answer).collect();
    let of = |attention: &str, length: usize| -> Vec<&AnswerRow> {
        let own = rows.iter().copied();
        own.filter(|row| row.attention == attention && row.length == length)
            .collect()
    };
    let attentions = distinct(rows.iter().map(|row| row.attention.as_str()));
    let lengths = rows.iter().map(|row| row.length);
    match compared(&attentions) {
        true => draw(
            run,
            (
                "scores",
                "Mean score of all tasks, 95 % intervals",
                "points more than dense",
            ),
            attentions,
            lengths,
            |attention, length| {
                let found = paired::scores(&of(attention, length), &of("dense", length))?;
                Some((100.0 * found.mean, found.half.map(|half| 100.0 * half)))
            },
        ),
        false => draw(
            run,
            ("scores", "Mean score of all tasks", "mean score, %"),
            attentions,
            lengths,
            |attention, length| {
                let own = of(attention, length);
                Some((100.0 * mean(own.iter().map(|row| row.score)), None))
            },
        ),
    }
}

/// Bits per byte of the scored parts of all windows of a length; where dense was scored too, the change of the
/// loss.
pub(super) fn bits(run: &Run) -> Option<Plot> {
    let rows: Vec<&PerplexityRow> = of_kind!(run.rows, Perplexity).collect();
    let of = |attention: &str, length: usize| -> Vec<&PerplexityRow> {
        let own = rows.iter().copied();
        own.filter(|row| row.attention == attention && row.length == length)
            .collect()
    };
    let attentions = distinct(rows.iter().map(|row| row.attention.as_str()));
    let lengths = rows.iter().map(|row| row.length);
    match compared(&attentions) {
        true => draw(
            run,
            (
                "perplexity",
                "Loss of the scored text, 95 % intervals",
                "% more than dense",
            ),
            attentions,
            lengths,
            |attention, length| {
                let found = paired::losses(&of(attention, length), &of("dense", length))?;
                Some((100.0 * found.mean, found.half.map(|half| 100.0 * half)))
            },
        ),
        false => draw(
            run,
            (
                "perplexity",
                "Bits per byte of the scored text",
                "bits per byte",
            ),
            attentions,
            lengths,
            |attention, length| {
                let own = of(attention, length);
                let nll: f64 = own.iter().map(|row| row.nll).sum();
                let bytes: usize = own.iter().map(|row| row.bytes).sum();
                Some((nll / (LN_2 * bytes as f64), None))
            },
        ),
    }
}

/// Tells whether there is dense and something to compare with it.
fn compared(attentions: &[&str]) -> bool {
    attentions.len() > 1 && attentions.contains(&"dense")
}

fn draw(
    run: &Run,
    (name, title, label): (&str, &str, &str),
    attentions: Vec<&str>,
    lengths: impl Iterator<Item = usize>,
    value: impl Fn(&str, usize) -> Value,
) -> Option<Plot> {
    let mut lengths = distinct(lengths);
    lengths.sort_unstable();
    let compared = compared(&attentions);
    let middle = attentions.len().saturating_sub(1) as f64 / 2.0;
    let series = attentions.into_iter().enumerate().map(|(at, attention)| {
        // Side by side, so that intervals do not hide each other.
        let aside = match compared && attention != "dense" {
            true => ASIDE.powf(at as f64 - middle),
            false => 1.0,
        };
        let of_length = |&length: &usize| Some((aside * length as f64, value(attention, length)?));
        let found = lengths.iter().filter_map(of_length);
        let found: Vec<_> = found.filter(|(_, (value, _))| value.is_finite()).collect();
        let halves = found.iter().filter_map(|(_, (_, half))| *half);
        let intervals: Vec<f64> = halves.collect();
        let points: Vec<_> = found.iter().map(|&(x, (value, _))| (x, value)).collect();
        Series {
            name: attention.into(),
            intervals: match intervals.len() == points.len() && attention != "dense" {
                true => intervals,
                false => Vec::new(),
            },
            points,
        }
    });
    let series: Vec<Series> = series.collect();
    let y = linear(label, series.iter().flat_map(Series::values))?;
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
