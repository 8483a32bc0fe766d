//! Answers of needle and ruler: mean scores, task by length, one column an attention.

use super::{ascending, attentions};
use crate::{
    paired,
    record::AnswerRow,
    run::{Run, distinct, mean, of_kind, task_mean},
    show,
    table::Table,
};

pub(super) fn table(run: &Run) -> Table {
    let rows: Vec<&AnswerRow> = of_kind!(run.rows, Answer).collect();
    let names = attentions(rows.iter().map(|row| &row.attention));
    let mut columns = vec!["<task".to_string(), "tokens".into(), "questions".into()];
    for name in &names {
        columns.push(format!("{name}, %"));
    }
    for name in names.iter().filter(|name| **name != "dense") {
        columns.push(format!("{name} minus dense"));
    }
    for name in names.iter().filter(|name| **name != "dense") {
        columns.push(format!("{name} density, %"));
    }
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let mut table = Table::new("Answers: mean score", &columns);
    let tasks = distinct(rows.iter().map(|row| row.task.as_str()));
    for task in tasks.iter().map(|task| Some(*task)).chain([None]) {
        // The mean over tasks is a line of its own where there are several.
        if task.is_none() && tasks.len() < 2 {
            continue;
        }
        for length in ascending(rows.iter().map(|row| row.length)) {
            let of = |name: &str| {
                let wanted = |row: &&&AnswerRow| {
                    row.attention == name
                        && row.length == length
                        && task.is_none_or(|task| row.task == task)
                };
                rows.iter().filter(wanted).copied().collect::<Vec<_>>()
            };
            let counts = distinct(names.iter().map(|name| of(name).len()));
            if counts.iter().all(|count| *count == 0) {
                continue;
            }
            let counts: Vec<String> = counts.iter().map(ToString::to_string).collect();
            let mut cells = vec![
                task.unwrap_or("all").to_string(),
                show::tokens(length),
                counts.join(" / "),
            ];
            for name in &names {
                cells.push(show::percent(task_mean(&of(name))));
            }
            for name in names.iter().filter(|name| **name != "dense") {
                let found = paired::scores(&of(name), &of("dense"));
                cells.push(found.map_or(String::new(), |found| found.show(100.0, 1)));
            }
            for name in names.iter().filter(|name| **name != "dense") {
                cells.push(show::percent(mean(of(name).iter().map(|row| row.density))));
            }
            table.rows.push(cells);
        }
    }
    if table.rows.iter().any(|row| row[2].contains('/')) {
        table
            .notes
            .push("The attentions answered different numbers of questions.".into());
    }
    table
}
