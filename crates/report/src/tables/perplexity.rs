//! Perplexity as bits per byte: `sum nll / (ln 2 * sum bytes)`, which no tokenizer can change.

use std::f64::consts::LN_2;

use super::{ascending, attentions};
use crate::{
    paired,
    record::PerplexityRow,
    run::{Run, mean, of_kind},
    show,
    table::Table,
};

pub(super) fn table(run: &Run) -> Table {
    let rows: Vec<&PerplexityRow> = of_kind!(run.rows, Perplexity).collect();
    let mut table = Table::new(
        "Perplexity",
        &[
            "tokens",
            "<attention",
            "windows",
            "bits per byte",
            "change of the loss, %",
            "divergence, nats",
            "same first, %",
            "density, %",
            "s a window",
        ],
    );
    for length in ascending(rows.iter().map(|row| row.length)) {
        for name in attentions(rows.iter().map(|row| &row.attention)) {
            let of = |name: &str| {
                let wanted = |row: &&&PerplexityRow| row.attention == name && row.length == length;
                rows.iter().filter(wanted).copied().collect::<Vec<_>>()
            };
            let own = of(name);
            if own.is_empty() {
                continue;
            }
            let dense = of("dense");
            table.rows.push(vec![
                show::tokens(length),
                name.into(),
                own.len().to_string(),
                format!("{:.4}", bits_per_byte(&own)),
                difference(&own, &dense),
                paired::divergences(&own).map_or(String::new(), |found| found.show_size(4)),
                paired::same_first(&own).map_or(String::new(), show::percent),
                show::percent(mean(own.iter().map(|row| row.density))),
                show::number(mean(own.iter().map(|row| row.seconds))),
            ]);
        }
    }
    table
}

fn bits_per_byte(rows: &[&PerplexityRow]) -> f64 {
    let nll: f64 = rows.iter().map(|row| row.nll).sum();
    let bytes: usize = rows.iter().map(|row| row.bytes).sum();
    nll / (LN_2 * bytes as f64)
}

/// In percent of dense's loss; empty for dense itself and where no window is shared.
fn difference(own: &[&PerplexityRow], dense: &[&PerplexityRow]) -> String {
    match own.iter().all(|row| row.attention == "dense") {
        true => String::new(),
        false => paired::losses(own, dense).map_or(String::new(), |found| found.show(100.0, 2)),
    }
}
