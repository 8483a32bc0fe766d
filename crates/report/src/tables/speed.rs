//! Time to first token with memory, its growth, and decoding.

use super::{FORCED, any_forced, ascending, attentions};
use crate::{
    growth,
    record::{DecodeRow, TtftRow},
    run::{Run, of_kind},
    show,
    table::Table,
};

/// Rows of a kind, by number and dense last.
fn sorted<T>(rows: Vec<&T>, number: fn(&T) -> usize, name: fn(&T) -> &String) -> Vec<&T> {
    let names = attentions(rows.iter().map(|row| name(row)));
    let mut rows = rows;
    let place = |row: &T| names.iter().position(|n| n == name(row));
    rows.sort_by_key(|row| (number(row), place(row)));
    rows
}

pub(super) fn ttft(run: &Run) -> Table {
    let rows: Vec<&TtftRow> = of_kind!(run.rows, Ttft).collect();
    let rows = sorted(rows, |row| row.length, |row| &row.attention);
    let mut table = Table::new(
        "Time to first token, and memory at the peak",
        &[
            "tokens",
            "<attention",
            "TTFT, s",
            "<range, s",
            "runs",
            "first, s",
            "tokens/s",
            "dense / this",
            "density, %",
            "error",
            "weights, GiB",
            "cache, GiB",
            "workspace, GiB",
            "<memory",
            "<remark",
        ],
    );
    for row in &rows {
        let is_dense = row.attention == "dense";
        let dense = rows
            .iter()
            .find(|r| r.attention == "dense" && r.length == row.length);
        let fold = |f: fn(f64, f64) -> f64, from| row.runs_s.iter().copied().fold(from, f);
        table.rows.push(vec![
            show::tokens(row.length),
            row.attention.clone(),
            show::number(row.ttft_s),
            format!(
                "{} to {}",
                show::number(fold(f64::min, f64::INFINITY)),
                show::number(fold(f64::max, 0.0))
            ),
            row.runs_s.len().to_string(),
            show::number(row.first_s),
            show::number(row.length as f64 / row.ttft_s),
            match dense {
                Some(dense) if !is_dense => format!("{:.2}", dense.ttft_s / row.ttft_s),
                _ => String::new(),
            },
            show::percent(row.density),
            if is_dense {
                String::new()
            } else {
                show::error(row.error)
            },
            show::gib(row.memory.weights),
            show::gib(row.memory.cache),
            show::gib(row.memory.workspace),
            match row.memory.measured {
                true => "measured".into(),
                false => "planned, not measured".into(),
            },
            if row.forced {
                FORCED.into()
            } else {
                String::new()
            },
        ]);
    }
    table.notes = vec![
        "TTFT: median seconds from the start of the prefill until the logits were on the host; the \
         first run compiles and tunes and is not among them. Error: relative L2 distance of the last \
         hidden state to dense. Workspace: the peak less weights and cache."
            .into(),
    ];
    if any_forced(&run.rows) {
        let note = format!("{FORCED}. Errors of those rows say nothing about a trained model.");
        table.notes.push(note);
    }
    table
}

pub(super) fn growth(run: &Run) -> Table {
    let rows: Vec<&TtftRow> = of_kind!(run.rows, Ttft).collect();
    let points = |name: &str| -> Vec<(usize, f64)> {
        let own = rows.iter().filter(|row| row.attention == name);
        own.map(|row| (row.length, row.ttft_s)).collect()
    };
    let names = attentions(rows.iter().map(|row| &row.attention));
    let all = names
        .iter()
        .flat_map(|name| growth::fourfold(&points(name)));
    let starts = ascending(all.map(|(length, _)| length));
    let mut columns = vec![
        "<attention".to_string(),
        "lengths".into(),
        "gradient".into(),
    ];
    for start in &starts {
        let (from, to) = (show::tokens(*start), show::tokens(4 * start));
        columns.push(format!("TTFT({to}) / TTFT({from})"));
    }
    columns.push("<remark".into());
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let mut table = Table::new("Growth of the time to first token", &columns);
    for name in names {
        let points = points(name);
        let Some(gradient) = growth::gradient(&points) else {
            continue;
        };
        let ratios = growth::fourfold(&points);
        let mut cells = vec![
            name.into(),
            points.len().to_string(),
            format!("{gradient:.3}"),
        ];
        for start in &starts {
            let ratio = ratios.iter().find(|(length, _)| length == start);
            cells.push(ratio.map_or(String::new(), |(_, ratio)| format!("{ratio:.2}")));
        }
        let forced = rows.iter().any(|row| row.attention == name && row.forced);
        cells.push(if forced { FORCED.into() } else { String::new() });
        table.rows.push(cells);
    }
    table.notes = vec![
        "Gradient: least-squares slope of log2 TTFT over log2 length; 1 is linear growth, 2 is \
         quadratic. Four times the length takes 4 times as long where growth is linear, 16 times \
         where it is quadratic."
            .into(),
    ];
    table
}

pub(super) fn decode(run: &Run) -> Table {
    let rows: Vec<&DecodeRow> = of_kind!(run.rows, Decode).collect();
    let mut table = Table::new(
        "Decoding after a prefill; decoding itself is dense",
        &[
            "cache, tokens",
            "<attention of the prefill",
            "new tokens",
            "runs",
            "ms a token",
            "tokens/s",
            "sequences",
            "tokens/s, all",
        ],
    );
    for row in sorted(rows, |row| row.depth, |row| &row.attention) {
        table.rows.push(vec![
            show::tokens(row.depth),
            row.attention.clone(),
            row.tokens.to_string(),
            row.runs_s.len().to_string(),
            show::number(1e3 * row.per_token_s),
            show::number(1.0 / row.per_token_s),
            several(row, row.sequences.to_string()),
            several(row, show::number(row.sequences as f64 / row.per_token_s)),
        ]);
    }
    table
}

/// Said only where several sequences decode at once.
fn several(row: &DecodeRow, text: String) -> String {
    if row.sequences > 1 {
        text
    } else {
        String::new()
    }
}

/// The stages of pipelines; no rows where nothing was cut.
pub(super) fn stages(run: &Run) -> Table {
    let rows: Vec<&TtftRow> = of_kind!(run.rows, Ttft).collect();
    let mut table = Table::new(
        "Stages of the pipeline",
        &[
            "tokens",
            "<attention",
            "chunks",
            "stage",
            "<device",
            "layers",
            "busy, s",
            "TTFT, s",
            "devices at work",
            "weights, GiB",
            "cache, GiB",
            "workspace, GiB",
            "peak, GiB",
        ],
    );
    for row in sorted(rows, |row| row.length, |row| &row.attention) {
        for (at, stage) in row.stages.iter().enumerate() {
            let memory = &stage.memory;
            table.rows.push(vec![
                show::tokens(row.length),
                row.attention.clone(),
                row.chunks.to_string(),
                at.to_string(),
                stage.device.clone(),
                stage.layers.to_string(),
                show::number(stage.busy_s),
                show::number(row.ttft_s),
                match (at, row.overlap()) {
                    (0, Some(overlap)) => format!("{overlap:.2}"),
                    _ => String::new(),
                },
                show::gib(memory.weights),
                show::gib(memory.cache),
                show::gib(memory.workspace),
                show::gib(memory.weights + memory.cache + memory.workspace),
            ]);
        }
    }
    table.notes = vec![
        "Busy: seconds in which a stage had a chunk in work. Devices at work: busy seconds of all stages over \
         the time to first token. The peak leaves out what the driver takes."
            .into(),
    ];
    table
}
