//! Attention of one layer alone.

use super::attentions;
use crate::{
    record::KernelRow,
    run::{Run, of_kind},
    show,
    table::Table,
};

pub(super) fn table(run: &Run) -> Table {
    let mut rows: Vec<&KernelRow> = of_kind!(run.rows, Kernel).collect();
    let names = attentions(rows.iter().map(|row| &row.attention));
    let shape = |row: &KernelRow| (row.heads, row.kv_heads, row.head_dim);
    let place = |row: &KernelRow| names.iter().position(|name| *name == row.attention);
    rows.sort_by_key(|row| (shape(row), row.length, place(row)));
    let mut table = Table::new(
        "Attention of one layer, checked against f64 before it is timed",
        &[
            "<heads/KV heads/dim",
            "tokens",
            "<attention",
            "density, %",
            "median, ms",
            "least, ms",
            "TFLOP/s",
            "dense / this",
            "error",
        ],
    );
    for row in &rows {
        let dense = rows
            .iter()
            .find(|r| r.attention == "dense" && r.length == row.length && shape(r) == shape(row));
        table.rows.push(vec![
            format!("{}/{}/{}", row.heads, row.kv_heads, row.head_dim),
            show::tokens(row.length),
            row.attention.clone(),
            show::percent(row.density),
            show::number(row.median_ms),
            show::number(row.min_ms),
            show::number(row.tflops),
            match dense {
                Some(dense) if row.attention != "dense" => {
                    format!("{:.2}", dense.median_ms / row.median_ms)
                }
                _ => String::new(),
            },
            show::error(Some(row.error)),
        ]);
    }
    table
}
