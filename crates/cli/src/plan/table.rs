//! A plan for people.

use std::fmt::Write;

use serde_json::{Value, json};
use sparse_accelerate::KvType;
use sparse_accelerate_engine::{
    memory::{Bytes, StageMemory},
    placement::SplitError,
    planner::{Advice, Change, Plan, PlanError, PlanRequest, PlannedStage, Schedule, plan},
};

use super::notes::notes;

const COLUMNS: [&str; 8] = [
    "device",
    "layers",
    "weights",
    "KV cache",
    "workspace",
    "runtime",
    "total",
    "free",
];

/// The whole answer.
pub(super) fn render(name: &str, request: &PlanRequest, plan: &Plan) -> String {
    let config = &request.config;
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{name}: {} layers, {:.2} billion parameters of {} bytes; context {} ({} prompt + {} answer), \
         KV cache {}, chunk {}, split {}\n",
        config.layers,
        config.parameter_count() as f64 / 1e9,
        request.footprint.element,
        request.context,
        request.prompt(),
        request.max_tokens,
        match request.footprint.kv {
            KvType::Model => "as the weights",
            other => other.name(),
        },
        request.chunk,
        request.split,
    );
    let mut rows: Vec<[String; 8]> = vec![COLUMNS.map(str::to_owned)];
    rows.extend(plan.stages.iter().map(row));
    out += &align(&rows);
    let why = match plan.longest_by_memory {
        true => "memory",
        false => "the model's positions",
    };
    let _ = writeln!(out, "\nlongest context: {} tokens ({why})\n", plan.longest);
    out += &times(plan);
    out.push('\n');
    for note in notes(request) {
        let _ = writeln!(out, "{:<9} {}", note.kind, note.text);
    }
    out
}

fn row(stage: &PlannedStage) -> [String; 8] {
    let memory = &stage.memory;
    let free = stage
        .free
        .map_or("unknown".into(), |free| Bytes(free).to_string());
    [
        stage.device.title.clone(),
        layers(memory),
        Bytes(memory.weights.total()).to_string(),
        Bytes(memory.cache).to_string(),
        Bytes(memory.workspace.total()).to_string(),
        Bytes(memory.runtime).to_string(),
        Bytes(stage.total).to_string(),
        free,
    ]
}

fn layers(memory: &StageMemory) -> String {
    format!("{}..{}", memory.layers.start, memory.layers.end)
}

fn times(plan: &Plan) -> String {
    let density = format!("sparse, density {:.3}", plan.times.density);
    let mut rows = vec![[
        "time to first token".to_owned(),
        "one device at a time".into(),
        String::new(),
    ]];
    if let Some(chunks) = plan.times.dense.chunks {
        rows[0][2] = format!("pipelined, {chunks} chunks");
    }
    let line = |name: String, schedule: &Schedule| {
        let pipelined = schedule.pipelined_s.map(seconds).unwrap_or_default();
        [name, seconds(schedule.sequential_s), pipelined]
    };
    rows.push(line("dense".into(), &plan.times.dense));
    rows.push(line(density, &plan.times.sparse));
    align(&rows)
}

fn seconds(seconds: f64) -> String {
    match seconds {
        s if s >= 100.0 => format!("{s:.0} s"),
        s if s >= 10.0 => format!("{s:.1} s"),
        s if s >= 0.01 => format!("{s:.2} s"),
        s => format!("{:.2} ms", 1e3 * s),
    }
}

/// Rows of columns as wide as their widest cell; the first to the left, the others to the right.
fn align<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max();
    let widths: Vec<_> = (0..N).map(|at| width(at).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(at, (cell, width))| match at {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        out += cells.collect::<Vec<_>>().join("  ").trim_end();
        out.push('\n');
    }
    out
}

/// Lists the requests that fit instead, one a line, below a refusal.
pub(super) fn advice(advice: &[Advice]) -> String {
    if advice.is_empty() {
        return "\nnothing was found that fits: not an int8 cache, smaller chunks, another split, a shorter \
                context or 8 more devices"
            .into();
    }
    let mut out = String::from("\nwhat fits, nearest first:");
    for advice in advice {
        let _ = write!(out, "\n  {}", words(advice));
        if let Some(least) = least_free(advice) {
            let _ = write!(out, "   ({} left on the fullest device)", Bytes(least));
        }
    }
    out
}

/// The changes as they are written on the command line.
fn words(advice: &Advice) -> String {
    let changes: Vec<_> = advice.changes.iter().map(change).collect();
    changes.join(" with ")
}

fn change(change: &Change) -> String {
    match change {
        Change::Int8Cache => "--kv-dtype int8".into(),
        Change::Chunk(tokens) => format!("--chunk {tokens}"),
        Change::Split(split) => format!("--split {split}"),
        Change::Context(tokens) => format!("--context {tokens}"),
        Change::Devices { added: 1, name } => format!("one more {name}"),
        Change::Devices { added, name } => format!("{added} more {name}"),
    }
}

fn least_free(advice: &Advice) -> Option<u64> {
    let plan = plan(&advice.request).ok()?;
    plan.stages.iter().filter_map(|stage| stage.free).min()
}

pub(super) fn advice_json(advice: &Advice) -> Value {
    json!({
        "change": words(advice),
        "changes": advice.changes,
        "least_free": least_free(advice),
    })
}

/// The stage that does not fit.
pub(super) fn breakdown(error: &PlanError) -> Value {
    match error {
        PlanError::Split(SplitError::DoesNotFit {
            stage,
            device,
            available,
            memory,
        }) => json!({
            "stage": stage,
            "device": device,
            "available": available,
            "total": memory.total(),
            "memory": memory,
        }),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use sparse_accelerate_engine::placement::Split;

    use super::*;

    #[test]
    fn changes_are_worded_as_arguments() {
        let devices = |added| Change::Devices {
            added,
            name: "l4".into(),
        };
        for (one, words) in [
            (Change::Int8Cache, "--kv-dtype int8"),
            (Change::Chunk(1024), "--chunk 1024"),
            (Change::Split(Split::Auto), "--split auto"),
            (Change::Context(50_176), "--context 50176"),
            (devices(1), "one more l4"),
            (devices(3), "3 more l4"),
        ] {
            assert_eq!(change(&one), words);
        }
    }
}
