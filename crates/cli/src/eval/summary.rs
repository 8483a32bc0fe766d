//! Tables from the rows of a run file.
//!
//! Attentions in the order of the rows, dense first; lengths ascending. Scores of several tasks are
//! averaged over tasks, each with the same weight, as RULER does. Differences to dense are on the same questions
//! or windows, with 95 % intervals.

use sparse_accelerate_eval::speed::median;
use sparse_accelerate_report::{
    distinct, mean, paired,
    record::{AnswerRow, FidelityRow, HeadRow, Line, PerplexityRow},
    task_mean,
};

use super::table::{head, table};

/// The median of what an iterator gives.
fn middle(values: impl Iterator<Item = f64>) -> f64 {
    median(&values.collect::<Vec<_>>())
}

fn percent(share: f64) -> String {
    format!("{:.1}%", 100.0 * share)
}

fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.2} s"),
        s => format!("{s:.1} s"),
    }
}

/// (length, attention) of rows: lengths ascending, attentions as they come, dense first.
fn groups<'a>(rows: impl Iterator<Item = (usize, &'a str)> + Clone) -> Vec<(usize, &'a str)> {
    let mut lengths = distinct(rows.clone().map(|(length, _)| length));
    lengths.sort_unstable();
    let mut attentions = distinct(rows.clone().map(|(_, attention)| attention));
    attentions.sort_by_key(|name| *name != "dense");
    let pairs = lengths
        .iter()
        .flat_map(|length| attentions.iter().map(move |a| (*length, *a)));
    pairs
        .filter(|pair| rows.clone().any(|row| row == *pair))
        .collect()
}

fn answers(lines: &[Line]) -> Vec<&AnswerRow> {
    let rows = lines.iter().filter_map(|line| match line {
        Line::Answer(row) => Some(row),
        _ => None,
    });
    rows.collect()
}

/// The difference of rows of one length and attention to dense's, in points.
fn difference(all: &[&AnswerRow], own: &[&AnswerRow]) -> String {
    let Some(first) = own.first().filter(|row| row.attention != "dense") else {
        return "-".into();
    };
    let dense = all.iter().copied();
    let dense = dense.filter(|row| row.attention == "dense" && row.length == first.length);
    let found = paired::scores(own, &dense.collect::<Vec<_>>());
    found.map_or("-".into(), |found| found.show(100.0, 1))
}

/// One row for each attention and length; `depths` adds a column for each place of the needle.
fn overall(rows: &[&AnswerRow], depths: bool) -> String {
    let mut places = distinct(rows.iter().filter_map(|row| row.depth));
    places.sort_by(f64::total_cmp);
    if !depths {
        places.clear();
    }
    let mut titles = head(&["attention", "length", "score", "vs dense"]);
    titles.extend(
        places
            .iter()
            .map(|place| format!("at {:.0}%", 100.0 * place)),
    );
    titles.extend(head(&["answers", "density", "TTFT"]));
    let pairs = groups(rows.iter().map(|row| (row.length, row.attention.as_str())));
    let body = pairs.into_iter().map(|(length, attention)| {
        let here = rows.iter().copied();
        let here = here.filter(|row| row.length == length && row.attention == attention);
        let here: Vec<&AnswerRow> = here.collect();
        let mut cells = vec![
            attention.into(),
            length.to_string(),
            percent(task_mean(&here)),
            difference(rows, &here),
        ];
        cells.extend(places.iter().map(|place| {
            let at = here.iter().copied().filter(|row| row.depth == Some(*place));
            let at: Vec<&AnswerRow> = at.collect();
            match at.is_empty() {
                true => "-".into(),
                false => percent(task_mean(&at)),
            }
        }));
        cells.extend([
            here.len().to_string(),
            format!("{:.3}", mean(here.iter().map(|row| row.density))),
            seconds(middle(here.iter().map(|row| row.ttft_s))),
        ]);
        cells
    });
    table(&titles, &body.collect::<Vec<_>>())
}

/// A table for each length: a row for each task, a column for each attention.
fn by_task(rows: &[&AnswerRow]) -> String {
    let mut attentions = distinct(rows.iter().map(|row| row.attention.as_str()));
    attentions.sort_by_key(|name| *name != "dense");
    let mut lengths = distinct(rows.iter().map(|row| row.length));
    lengths.sort_unstable();
    let mut text = String::new();
    for length in lengths {
        let here = rows.iter().copied().filter(|row| row.length == length);
        let here: Vec<&AnswerRow> = here.collect();
        let mut titles = vec![format!("{length} tokens")];
        titles.extend(attentions.iter().map(ToString::to_string));
        let tasks = distinct(here.iter().map(|row| row.task.as_str()));
        let of = |attention: &str, task: Option<&str>| {
            let rows = here
                .iter()
                .copied()
                .filter(|row| row.attention == attention);
            let rows = rows.filter(|row| task.is_none_or(|task| row.task == task));
            let rows: Vec<&AnswerRow> = rows.collect();
            match (rows.is_empty(), difference(&here, &rows).as_str()) {
                (true, _) => "-".to_owned(),
                (false, "-") => percent(task_mean(&rows)),
                (false, found) => format!("{} ({found})", percent(task_mean(&rows))),
            }
        };
        let mut body: Vec<Vec<String>> = Vec::new();
        for task in tasks {
            let cells = attentions.iter().map(|attention| of(attention, Some(task)));
            body.push(std::iter::once(task.to_owned()).chain(cells).collect());
        }
        let cells = attentions.iter().map(|attention| of(attention, None));
        body.push(std::iter::once("mean".to_owned()).chain(cells).collect());
        text += &format!("\n{}", table(&titles, &body));
    }
    text
}

fn skipped(lines: &[Line]) -> String {
    let rows = lines.iter().filter_map(|line| match line {
        Line::Skipped(row) => Some(format!("skipped {}: {}\n", row.what, row.reason)),
        _ => None,
    });
    let rows: String = rows.collect();
    match rows.is_empty() {
        true => rows,
        false => format!("\n{rows}"),
    }
}

/// The tables of `eval needle`.
pub(super) fn needle(lines: &[Line]) -> String {
    let rows = answers(lines);
    let several = distinct(rows.iter().map(|row| row.task.as_str())).len() > 1;
    let tasks = if several {
        by_task(&rows)
    } else {
        String::new()
    };
    format!("{}{tasks}{}", overall(&rows, true), skipped(lines))
}

/// The tables of `eval ruler`.
pub(super) fn ruler(lines: &[Line]) -> String {
    let rows = answers(lines);
    format!(
        "{}{}{}",
        overall(&rows, false),
        by_task(&rows),
        skipped(lines)
    )
}

/// The table of `eval perplexity`.
pub(super) fn perplexity(lines: &[Line]) -> String {
    let rows = lines.iter().filter_map(|line| match line {
        Line::Perplexity(row) => Some(row),
        _ => None,
    });
    let rows: Vec<&PerplexityRow> = rows.collect();
    let of = |length: usize, attention: &str| -> Vec<&PerplexityRow> {
        let here = rows.iter().copied();
        here.filter(|row| row.length == length && row.attention == attention)
            .collect()
    };
    // Nats a token over all windows.
    let nats = |rows: &[&PerplexityRow]| {
        let tokens: usize = rows.iter().map(|row| row.scored).sum();
        rows.iter().map(|row| row.nll).sum::<f64>() / tokens as f64
    };
    let pairs = groups(rows.iter().map(|row| (row.length, row.attention.as_str())));
    let body = pairs.into_iter().map(|(length, attention)| {
        let (here, dense) = (of(length, attention), of(length, "dense"));
        let bytes: usize = here.iter().map(|row| row.bytes).sum();
        let bits = here.iter().map(|row| row.nll).sum::<f64>() / std::f64::consts::LN_2;
        let loss = match attention {
            "dense" => None,
            _ => paired::losses(&here, &dense),
        };
        vec![
            attention.into(),
            length.to_string(),
            format!("{:.3}", nats(&here).exp()),
            loss.map_or("-".into(), |found| found.show(100.0, 2)),
            paired::divergences(&here).map_or("-".into(), |found| found.show_size(4)),
            paired::same_first(&here).map_or("-".into(), percent),
            format!("{:.4}", bits / bytes as f64),
            here.len().to_string(),
            here.iter().map(|row| row.scored).sum::<usize>().to_string(),
            format!("{:.3}", mean(here.iter().map(|row| row.density))),
            seconds(middle(here.iter().map(|row| row.seconds))),
        ]
    });
    let titles = head(&[
        "attention",
        "length",
        "perplexity",
        "loss vs dense, %",
        "divergence",
        "same first",
        "bits/byte",
        "windows",
        "scored",
        "density",
        "time",
    ]);
    table(&titles, &body.collect::<Vec<_>>())
}

/// The table of `eval fidelity`.
pub(super) fn fidelity(lines: &[Line]) -> String {
    let (mut rows, mut heads): (Vec<&FidelityRow>, Vec<&HeadRow>) = (Vec::new(), Vec::new());
    for line in lines {
        match line {
            Line::Fidelity(row) => rows.push(row),
            Line::Head(row) => heads.push(row),
            _ => {}
        }
    }
    let pairs = groups(rows.iter().map(|row| (row.length, row.attention.as_str())));
    let body = pairs.into_iter().map(|(length, attention)| {
        let here = rows.iter().copied();
        let here = here.filter(|row| row.length == length && row.attention == attention);
        let here: Vec<&FidelityRow> = here.collect();
        let inside = heads.iter().copied();
        let inside = inside.filter(|row| row.length == length && row.attention == attention);
        let inside: Vec<&HeadRow> = inside.collect();
        vec![
            attention.into(),
            length.to_string(),
            format!("{:.4}", mean(here.iter().map(|row| row.kl))),
            percent(mean(here.iter().map(|row| f64::from(u8::from(row.top1))))),
            format!("{:.4}", mean(here.iter().map(|row| row.hidden_error))),
            format!("{:.4}", mean(inside.iter().map(|row| row.recall))),
            worst(&inside),
            format!("{:.4}", mean(inside.iter().map(|row| row.error))),
            here.len().to_string(),
            format!("{:.3}", mean(here.iter().map(|row| row.density))),
            seconds(middle(here.iter().map(|row| row.seconds))),
            seconds(middle(here.iter().map(|row| row.dense_seconds))),
        ]
    });
    let titles = head(&[
        "attention",
        "length",
        "KL",
        "top-1",
        "hidden",
        "recall",
        "worst head",
        "head error",
        "prompts",
        "density",
        "prefill",
        "dense",
    ]);
    table(&titles, &body.collect::<Vec<_>>())
}

/// The layer and head with the least recall, its mean over prompts.
fn worst(rows: &[&HeadRow]) -> String {
    let heads = distinct(rows.iter().map(|row| (row.layer, row.head)));
    let recalls = heads.into_iter().map(|(layer, head)| {
        let here = rows
            .iter()
            .filter(|row| (row.layer, row.head) == (layer, head));
        (mean(here.map(|row| row.recall)), layer, head)
    });
    let least = recalls.min_by(|a, b| a.0.total_cmp(&b.0));
    least.map_or("-".into(), |(recall, layer, head)| {
        format!("{recall:.4} (layer {layer}, head {head})")
    })
}

#[cfg(test)]
#[path = "summary_tests.rs"]
mod tests;
