//! The tables of a run, one module a kind of row.

mod answers;
mod compared;
mod frontier;
mod kernels;
mod perplexity;
mod speed;

use crate::{
    record::Line,
    run::{Run, of_kind},
    table::Table,
};

/// Note beside every row whose density was forced.
pub const FORCED: &str = "forced density: random weights; times and memory only";

/// Every table that the rows of a run fill.
pub fn tables(run: &Run) -> Vec<Table> {
    let all = [
        answers::table(run),
        perplexity::table(run),
        compared::fidelity(run),
        compared::heads(run),
        speed::ttft(run),
        speed::stages(run),
        speed::growth(run),
        speed::decode(run),
        kernels::table(run),
        frontier::oracle(run),
        frontier::selectors(run),
        frontier::headline(run),
        skipped(run),
    ];
    let filled = all.into_iter().filter(|table| !table.rows.is_empty());
    filled.map(Table::without_empty).collect()
}

/// Table of the requested measurements that could not be run.
fn skipped(run: &Run) -> Table {
    let mut table = Table::new("Not run", &["<what", "<reason"]);
    for row in of_kind!(run.rows, Skipped) {
        table.rows.push(vec![row.what.clone(), row.reason.clone()]);
    }
    table
}

/// Attentions with `dense` last, so that it is the next row of what it is compared with.
fn dense_last(names: Vec<&str>) -> Vec<&str> {
    let (dense, mut others): (Vec<_>, Vec<_>) = names.into_iter().partition(|n| *n == "dense");
    others.extend(dense);
    others
}

/// The attentions of some rows, dense last.
fn attentions<'a>(names: impl IntoIterator<Item = &'a String>) -> Vec<&'a str> {
    dense_last(crate::run::distinct(names.into_iter().map(String::as_str)))
}

/// The values, ascending, each once.
fn ascending(values: impl IntoIterator<Item = usize>) -> Vec<usize> {
    let mut values: Vec<usize> = values.into_iter().collect();
    values.sort_unstable();
    values.dedup();
    values
}

/// Returns true if the lines hold a time-to-first-token row whose density was forced.
fn any_forced(rows: &[Line]) -> bool {
    of_kind!(rows, Ttft).any(|row| row.forced)
}
