//! Density, error and time of selections, and the oracle that they are held against.

use super::ascending;
use crate::{
    frontier::{HELD_AGAINST, MASS_BLOCK, against_oracle, against_oracle_mass, mean_ratio},
    record::{FrontierRow, OracleRow},
    run::{Run, distinct, of_kind},
    show,
    table::Table,
};

const SHARED: &str = "KV head";
const OWN: &str = "query head";

/// Table of the oracle, which keeps the fewest blocks that hold a share of the attention mass.
pub(super) fn oracle(run: &Run) -> Table {
    let mut rows: Vec<&OracleRow> = of_kind!(run.rows, Oracle).collect();
    rows.sort_by(|a, b| {
        let place = |row: &OracleRow| (row.length, usize::MAX - row.block, row.shared);
        let by_share = a.share.total_cmp(&b.share);
        place(a).cmp(&place(b)).then(by_share)
    });
    let mut table = Table::new(
        "Oracle: the fewest key blocks that hold a share of the attention mass",
        &[
            "tokens",
            "block",
            "<chosen by",
            "share",
            "density, %",
            "error",
            "error with block means",
        ],
    );
    for row in rows {
        table.rows.push(vec![
            show::tokens(row.length),
            row.block.to_string(),
            if row.shared { SHARED } else { OWN }.into(),
            show::number(row.share),
            show::percent(row.density),
            show::error(Some(row.error)),
            show::error(Some(row.corrected_error)),
        ]);
    }
    table
}

/// Every selection, by length.
pub(super) fn selectors(run: &Run) -> Table {
    let rows: Vec<&FrontierRow> = of_kind!(run.rows, Frontier).collect();
    let mut table = Table::new(
        "Selection and attention of a layer, or of all layers of a model",
        &[
            "tokens",
            "<selector",
            "floor",
            "density, %",
            "error",
            "oracle, %",
            "this / oracle",
            "mass oracle, %",
            "this / mass oracle",
            "recall expected",
            "measured",
            "least",
            "total, ms",
            "selection, ms",
            "dense, ms",
            "this / dense",
            "dense heads",
            "<patterns",
        ],
    );
    for length in ascending(rows.iter().map(|row| row.length)) {
        for row in rows.iter().filter(|row| row.length == length) {
            table.rows.push(cells(run, row));
        }
    }
    if !table.rows.is_empty() {
        table.notes.push(format!(
            "Errors are relative L2 against dense on the same rows of all heads. `oracle` is the density \
             that it needs for that error with blocks of {HELD_AGAINST}, chosen by KV head; `-` where the \
             error lies outside its table. `mass oracle` is the density that it needs for the measured recall \
             with blocks of {MASS_BLOCK} that the same heads choose by their mass, alone or those of a KV head together."
        ));
    }
    table
}

fn cells(run: &Run, row: &FrontierRow) -> Vec<String> {
    let some = |value: Option<f64>| value.map_or(String::new(), show::number);
    let shown = |found: Option<(f64, f64)>| match found {
        Some((oracle, ratio)) => (show::percent(oracle), show::number(ratio)),
        None => ("-".into(), "-".into()),
    };
    let (oracle, ratio) = shown(against_oracle(run, row));
    let (mass_oracle, mass_ratio) = shown(against_oracle_mass(run, row));
    let mix = row
        .mix
        .iter()
        .map(|(name, heads)| format!("{heads} {name}"));
    vec![
        show::tokens(row.length),
        row.selector.clone(),
        some(row.floor),
        show::percent(row.density),
        show::error(Some(row.error)),
        oracle,
        ratio,
        mass_oracle,
        mass_ratio,
        some(row.predicted_recall),
        some(row.recall),
        some(row.least_recall),
        show::number(row.total_ms),
        some(row.selection_ms),
        show::number(row.dense_ms),
        format!("{:.3}", row.total_ms / row.dense_ms),
        format!("{}/{}", row.dense_heads, row.heads),
        mix.collect::<Vec<_>>().join(", "),
    ]
}

/// Ratio of a selector's density to the oracle's at equal error, mean over recall floors.
pub(super) fn headline(run: &Run) -> Table {
    let rows: Vec<&FrontierRow> = of_kind!(run.rows, Frontier).collect();
    let lengths = ascending(rows.iter().map(|row| row.length));
    let names: Vec<String> = lengths.iter().map(|length| show::tokens(*length)).collect();
    let mut columns = vec!["<selector"];
    columns.extend(names.iter().map(String::as_str));
    let mut table = Table::new(
        "Density over the oracle's at equal error, mean over recall floors",
        &columns,
    );
    for selector in distinct(rows.iter().map(|row| row.selector.as_str())) {
        let cell = |length: &usize| match mean_ratio(run, selector, *length) {
            Some((ratio, count, all)) if count == all => format!("{ratio:.2}"),
            Some((ratio, count, all)) => format!("{ratio:.2} ({count} of {all})"),
            None => String::new(),
        };
        let cells: Vec<String> = lengths.iter().map(cell).collect();
        if cells.iter().any(|cell| !cell.is_empty()) {
            let mut row = vec![selector.to_owned()];
            row.extend(cells);
            table.rows.push(row);
        }
    }
    table
}
