//! Perplexity as bits per byte: `sum nll / (ln 2 * sum bytes)`, which no tokenizer can change.

use std::f64::consts::LN_2;

use super::{ascending, attentions};
use crate::{
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
            "minus dense",
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

/// Over the windows that both have; empty for dense itself and where none is shared.
fn difference(own: &[&PerplexityRow], dense: &[&PerplexityRow]) -> String {
    let in_both = |rows: &[&PerplexityRow], other: &[&PerplexityRow]| -> Vec<PerplexityRow> {
        let shared = |row: &&&PerplexityRow| other.iter().any(|o| o.sample == row.sample);
        rows.iter()
            .filter(shared)
            .map(|row| (*row).clone())
            .collect()
    };
    let is_dense = own.iter().all(|row| row.attention == "dense");
    let (own, dense) = (in_both(own, dense), in_both(dense, own));
    if is_dense || own.is_empty() {
        return String::new();
    }
    let own: Vec<&PerplexityRow> = own.iter().collect();
    let dense: Vec<&PerplexityRow> = dense.iter().collect();
    format!("{:+.4}", bits_per_byte(&own) - bits_per_byte(&dense))
}
