//! Sparse against dense on the same prompt: next token, hidden state, and the heads behind them.

use super::{ascending, attentions};
use crate::{
    record::{FidelityRow, HeadRow},
    run::{Run, mean, of_kind},
    show,
    table::Table,
};

pub(super) fn fidelity(run: &Run) -> Table {
    let rows: Vec<&FidelityRow> = of_kind!(run.rows, Fidelity).collect();
    let mut table = Table::new(
        "Fidelity: the next token and the last hidden state against dense",
        &[
            "tokens",
            "<attention",
            "prompts",
            "KL, nats",
            "same top token, %",
            "error, mean",
            "error, largest",
            "density, %",
            "prefill, s",
            "dense, s",
            "dense / this",
        ],
    );
    for length in ascending(rows.iter().map(|row| row.length)) {
        for name in attentions(rows.iter().map(|row| &row.attention)) {
            let wanted = |row: &&&FidelityRow| row.attention == name && row.length == length;
            let own: Vec<&FidelityRow> = rows.iter().filter(wanted).copied().collect();
            if own.is_empty() {
                continue;
            }
            let of = |value: fn(&FidelityRow) -> f64| mean(own.iter().map(|row| value(row)));
            let largest = own.iter().map(|row| row.hidden_error).fold(0.0, f64::max);
            let (seconds, dense) = (of(|row| row.seconds), of(|row| row.dense_seconds));
            table.rows.push(vec![
                show::tokens(length),
                name.into(),
                own.len().to_string(),
                show::number(of(|row| row.kl)),
                show::percent(of(|row| f64::from(u8::from(row.top1)))),
                show::error(Some(of(|row| row.hidden_error))),
                show::error(Some(largest)),
                show::percent(of(|row| row.density)),
                show::number(seconds),
                show::number(dense),
                format!("{:.2}", dense / seconds),
            ]);
        }
    }
    table
}

pub(super) fn heads(run: &Run) -> Table {
    let rows: Vec<&HeadRow> = of_kind!(run.rows, Head).collect();
    let mut table = Table::new(
        "Heads: attention mass kept, and the error of their outputs",
        &[
            "tokens",
            "<attention",
            "heads",
            "recall, mean",
            "recall, least row",
            "<least, layer.head",
            "error, mean",
            "density, %",
        ],
    );
    for length in ascending(rows.iter().map(|row| row.length)) {
        for name in attentions(rows.iter().map(|row| &row.attention)) {
            let wanted = |row: &&&HeadRow| row.attention == name && row.length == length;
            let own: Vec<&HeadRow> = rows.iter().filter(wanted).copied().collect();
            let by_recall = |a: &&&HeadRow, b: &&&HeadRow| a.recall_min.total_cmp(&b.recall_min);
            let Some(least) = own.iter().min_by(by_recall) else {
                continue;
            };
            let of = |value: fn(&HeadRow) -> f64| mean(own.iter().map(|row| value(row)));
            let heads = crate::run::distinct(own.iter().map(|row| (row.layer, row.head)));
            table.rows.push(vec![
                show::tokens(length),
                name.into(),
                heads.len().to_string(),
                format!("{:.4}", of(|row| row.recall)),
                format!("{:.4}", least.recall_min),
                format!("{}.{}", least.layer, least.head),
                show::error(Some(of(|row| row.error))),
                show::percent(of(|row| row.density)),
            ]);
        }
    }
    table
}
