//! Error against density, selections beside the oracle.

use super::{
    Kind, Plot,
    lines::{Axis, Lines, Series},
    of_run::file_name,
};
use crate::{
    record::{FrontierRow, OracleRow},
    run::{Run, distinct, of_kind},
    show,
};

/// One plot a length; empty without an oracle and without a selection.
pub(super) fn plots(run: &Run) -> Vec<Plot> {
    let oracle = of_kind!(run.rows, Oracle).map(|row| row.length);
    let selections = of_kind!(run.rows, Frontier).map(|row| row.length);
    let mut lengths = distinct(oracle.chain(selections));
    lengths.sort_unstable();
    lengths
        .into_iter()
        .filter_map(|length| plot(run, length))
        .collect()
}

fn plot(run: &Run, length: usize) -> Option<Plot> {
    let mut series = oracles(run, length);
    series.extend(selections(run, length));
    if series.is_empty() {
        return None;
    }
    let errors: Vec<f64> = series
        .iter()
        .flat_map(|series| series.points.iter().map(|point| point.1))
        .collect();
    let tick = |percent: i32| (f64::from(percent), percent.to_string());
    let tokens = show::tokens(length);
    Some(Plot {
        name: file_name(&["frontier", &tokens]),
        title: format!("Error against density, {tokens} tokens"),
        subtitle: run.subject(),
        kind: Kind::Lines(Lines {
            x: Axis {
                label: "density, % of causal query-key pairs".into(),
                logarithmic: false,
                ticks: (0..=100).step_by(10).map(tick).collect(),
            },
            y: Axis::decades("relative L2 error against dense", errors),
            series,
            joined: true,
            falling: true,
        }),
    })
}

/// The oracle by block and by who chooses.
fn oracles(run: &Run, length: usize) -> Vec<Series> {
    let rows: Vec<&OracleRow> = of_kind!(run.rows, Oracle)
        .filter(|row| row.length == length)
        .collect();
    let kinds = distinct(rows.iter().map(|row| (row.block, row.shared)));
    let one = |(block, shared): (usize, bool)| {
        let own = rows
            .iter()
            .filter(|row| (row.block, row.shared) == (block, shared));
        let by = if shared { "KV head" } else { "query head" };
        series(
            format!("oracle, {block} by {by}"),
            own.map(|row| (row.density, row.error)),
        )
    };
    kinds.into_iter().filter_map(one).collect()
}

fn selections(run: &Run, length: usize) -> Vec<Series> {
    let rows: Vec<&FrontierRow> = of_kind!(run.rows, Frontier)
        .filter(|row| row.length == length)
        .collect();
    let names = distinct(rows.iter().map(|row| &row.selector));
    let one = |name: &String| {
        let own = rows.iter().filter(|row| row.selector == *name);
        series(name.clone(), own.map(|row| (row.density, row.error)))
    };
    names.into_iter().filter_map(one).collect()
}

/// Points by density in per cent; those without an error have no place on a logarithmic axis.
fn series(name: String, points: impl Iterator<Item = (f64, f64)>) -> Option<Series> {
    let mut points: Vec<(f64, f64)> = points
        .filter(|(density, error)| density.is_finite() && *error > 0.0 && error.is_finite())
        .map(|(density, error)| (100.0 * density, error))
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    (!points.is_empty()).then_some(Series::new(&name, points))
}
