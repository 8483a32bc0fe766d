//! Plots that the rows of a run fill.

use super::{
    HeadChoice, Kind, Plot, by_length, choices, frontier,
    heat::Heat,
    lines::{Axis, Lines, Series},
};
use crate::{
    record::{AnswerRow, FidelityRow, HeadRow, TtftRow},
    run::{Run, distinct, mean, of_kind},
    show,
    tables::FORCED,
};

/// Every plot that the rows of a run fill.
pub fn plots(run: &Run) -> Vec<Plot> {
    let mut all = needles(run);
    all.extend(by_length::scores(run));
    all.extend(by_length::bits(run));
    all.extend(ttft(run));
    all.extend(errors(run));
    all.extend(recall(run));
    all.extend(chosen(run));
    all.extend(frontier::plots(run));
    all
}

/// Length by depth, one map an attention and task; of the tasks whose depths are a grid, which RULER's
/// are not.
fn needles(run: &Run) -> Vec<Plot> {
    let grid = |row: &&AnswerRow| row.depth.is_some() && row.task.starts_with("needle");
    let placed = of_kind!(run.rows, Answer).filter(grid);
    let rows: Vec<&AnswerRow> = placed.collect();
    let mut plots = Vec::new();
    for (task, attention) in distinct(rows.iter().map(|row| (&row.task, &row.attention))) {
        let own: Vec<&&AnswerRow> = rows
            .iter()
            .filter(|row| row.task == *task && row.attention == *attention)
            .collect();
        let mut lengths = distinct(own.iter().map(|row| row.length));
        lengths.sort_unstable();
        let mut depths = distinct(own.iter().filter_map(|row| row.depth));
        depths.sort_by(f64::total_cmp);
        // The start of the prompt stands at the top.
        depths.reverse();
        let cell = |depth: f64, length: usize| {
            let here = |row: &&&&AnswerRow| row.depth == Some(depth) && row.length == length;
            let score = mean(own.iter().filter(here).map(|row| row.score));
            score.is_finite().then_some(score)
        };
        let row = |depth: &f64| lengths.iter().map(|length| cell(*depth, *length)).collect();
        plots.push(Plot {
            name: file_name(&["needle", task, attention]),
            title: format!("{task}, attention {attention}"),
            subtitle: run.subject(),
            kind: Kind::Heat(Heat {
                x_label: "prompt, tokens".into(),
                y_label: "depth of the needle, % of the prompt".into(),
                value_label: "mean score".into(),
                x: lengths.iter().map(|length| show::tokens(*length)).collect(),
                y: depths
                    .iter()
                    .map(|depth| format!("{:.0}", 100.0 * depth))
                    .collect(),
                cells: depths.iter().map(row).collect(),
                range: (0.0, 1.0),
                hues: None,
            }),
        });
    }
    plots
}

/// Time against length, both logarithmic.
fn ttft(run: &Run) -> Option<Plot> {
    let rows: Vec<&TtftRow> = of_kind!(run.rows, Ttft)
        .filter(|row| row.ttft_s > 0.0)
        .collect();
    let mut lengths = distinct(rows.iter().map(|row| row.length));
    lengths.sort_unstable();
    if lengths.is_empty() {
        return None;
    }
    let series = distinct(rows.iter().map(|row| &row.attention));
    let series = series.into_iter().map(|attention| {
        let own = rows.iter().filter(|row| row.attention == *attention);
        let mut points: Vec<_> = own.map(|row| (row.length as f64, row.ttft_s)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Series::new(attention, points)
    });
    let tick = |length: &usize| (*length as f64, show::tokens(*length));
    let forced = if rows.iter().any(|row| row.forced) {
        format!("; {FORCED}")
    } else {
        String::new()
    };
    Some(Plot {
        name: file_name(&["ttft", model(run)]),
        title: "Time to first token".into(),
        subtitle: format!("{}{forced}", run.subject()),
        kind: Kind::Lines(Lines {
            x: Axis {
                label: "prompt, tokens".into(),
                logarithmic: true,
                ticks: lengths.iter().map(tick).collect(),
            },
            y: Axis::decades(
                "time to first token, seconds",
                rows.iter().map(|row| row.ttft_s),
            ),
            series: series.collect(),
            joined: true,
            falling: false,
        }),
    })
}

/// Error of the last hidden state against density, a point a prompt.
fn errors(run: &Run) -> Option<Plot> {
    let measured = of_kind!(run.rows, Fidelity).filter(|row| row.hidden_error > 0.0);
    let rows: Vec<&FidelityRow> = measured.collect();
    if rows.is_empty() {
        return None;
    }
    let series = distinct(rows.iter().map(|row| &row.attention));
    let series = series.into_iter().map(|attention| {
        let own = rows.iter().filter(|row| row.attention == *attention);
        let points = own.map(|row| (100.0 * row.density, row.hidden_error));
        Series::new(attention, points.collect())
    });
    let tick = |percent: i32| (f64::from(percent), percent.to_string());
    Some(Plot {
        name: file_name(&["error-density", model(run)]),
        title: "Error against density".into(),
        subtitle: run.subject(),
        kind: Kind::Lines(Lines {
            x: Axis {
                label: "density, % of causal query-key pairs".into(),
                logarithmic: false,
                ticks: (0..=100).step_by(10).map(tick).collect(),
            },
            y: Axis::decades(
                "relative L2 error of the last hidden state",
                rows.iter().map(|row| row.hidden_error),
            ),
            series: series.collect(),
            joined: false,
            falling: true,
        }),
    })
}

/// Layer by head, one map an attention and length.
fn recall(run: &Run) -> Vec<Plot> {
    let rows: Vec<&HeadRow> = of_kind!(run.rows, Head).collect();
    let mut plots = Vec::new();
    for (attention, length) in distinct(rows.iter().map(|row| (&row.attention, row.length))) {
        let own: Vec<&&HeadRow> = rows
            .iter()
            .filter(|row| row.attention == *attention && row.length == length)
            .collect();
        let count = |of: fn(&HeadRow) -> usize| {
            own.iter()
                .map(|row| of(row))
                .max()
                .map_or(0, |last| last + 1)
        };
        let (layers, heads) = (count(|row| row.layer), count(|row| row.head));
        let mut sums = vec![vec![(0.0, 0u32); heads]; layers];
        for row in &own {
            let cell = &mut sums[row.layer][row.head];
            *cell = (cell.0 + row.recall, cell.1 + 1);
        }
        let cell = |(sum, n): &(f64, u32)| (*n > 0).then(|| sum / f64::from(*n));
        let cells: Vec<Vec<Option<f64>>> = sums
            .iter()
            .map(|row| row.iter().map(cell).collect())
            .collect();
        plots.push(Plot {
            name: file_name(&["recall", attention, &show::tokens(length)]),
            title: format!(
                "Attention mass kept, attention {attention}, {} tokens",
                show::tokens(length)
            ),
            subtitle: run.subject(),
            kind: Kind::Heat(Heat {
                x_label: "query head".into(),
                y_label: "layer".into(),
                value_label: "recall, share of attention mass".into(),
                x: (0..heads).map(|head| head.to_string()).collect(),
                y: (0..layers).map(|layer| layer.to_string()).collect(),
                cells,
                range: (0.0, 1.0),
                hues: None,
            }),
        });
    }
    plots
}

/// Plots of the heads' choices for the first prompt, one for each attention and length whose heads
/// choose.
fn chosen(run: &Run) -> Vec<Plot> {
    let rows: Vec<&HeadRow> = of_kind!(run.rows, Head)
        .filter(|row| row.choice.is_some())
        .collect();
    let mut plots = Vec::new();
    for (attention, length) in distinct(rows.iter().map(|row| (&row.attention, row.length))) {
        let own = rows
            .iter()
            .filter(|row| row.attention == *attention && row.length == length);
        let Some(first) = own.clone().map(|row| row.sample).min() else {
            continue;
        };
        let own = own.filter(|row| row.sample == first).map(|row| HeadChoice {
            layer: row.layer,
            head: row.head,
            choice: row.choice.clone().unwrap_or_default(),
            density: row.density,
            recall: row.recall,
        });
        let tokens = show::tokens(length);
        plots.push(choices(
            file_name(&["choices", attention, &tokens]),
            format!("What heads chose, attention {attention}, {tokens} tokens"),
            run.subject(),
            "query head",
            &own.collect::<Vec<_>>(),
        ));
    }
    plots
}

pub(super) fn model(run: &Run) -> &str {
    run.header
        .model
        .as_ref()
        .map_or("", |model| model.name.as_str())
}

/// Parts joined by `-`, with letters, digits, dots and dashes alone.
pub(super) fn file_name(parts: &[&str]) -> String {
    let parts = parts.iter().filter(|part| !part.is_empty());
    let clean = |part: &&str| -> String {
        let fit = |c: char| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        };
        part.chars().map(fit).collect()
    };
    parts.map(clean).collect::<Vec<_>>().join("-")
}
