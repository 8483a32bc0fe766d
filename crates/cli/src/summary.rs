//! The block printed after a run, and the words for a decision.
//!
//! Seconds, tokens per second and bytes as a person reads them; `--json` has the same numbers bare.

use std::fmt::Write;

use sparse_accelerate::Decision;
use sparse_accelerate_engine::{Generation, MeasuredMemory, memory::Bytes};

/// The summary block; `first_use` says that kernels were compiled and tuned on the way.
pub(crate) fn block(device: &str, first_use: bool, generation: &Generation) -> String {
    let timings = &generation.timings;
    let decode = timings.decode_tokens_per_s.map_or_else(
        || "- (needs a second token)".to_string(),
        |rate| format!("{rate:.1} tokens/s"),
    );
    let mut out = String::new();
    let mut rows = vec![
        ("device", device.to_string()),
        (
            "prefill",
            format!(
                "{} tokens at {:.1} tokens/s",
                generation.prompt_tokens, timings.prefill_tokens_per_s
            ),
        ),
        (
            "time to first token",
            match first_use {
                true => format!(
                    "{:.3} s, compiling and tuning kernels included",
                    timings.ttft_s
                ),
                false => format!("{:.3} s", timings.ttft_s),
            },
        ),
        (
            "decode",
            format!("{} tokens at {decode}", generation.ids.len()),
        ),
        ("attention", decision(&generation.decisions)),
        (
            "density",
            format!(
                "{:.1} % of causal query-key pairs computed",
                100.0 * generation.density
            ),
        ),
        ("peak memory", measured(&generation.memory.measured)),
        ("planned memory", generation.memory.planned.to_string()),
    ];
    if generation.busy_s.len() > 1 {
        rows.insert(1, ("stages", stages(generation)));
    }
    for (name, value) in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name:<20} {value}");
    }
    out
}

/// The layers of every stage, and how long it had work.
fn stages(generation: &Generation) -> String {
    let planned = generation.memory.planned.stages.iter();
    let each = planned.zip(&generation.busy_s).map(|(stage, busy_s)| {
        let layers = &stage.layers;
        format!("layers {}..{} busy {busy_s:.2} s", layers.start, layers.end)
    });
    let each: Vec<String> = each.collect();
    format!(
        "{} of {:.2} s",
        each.join(", "),
        generation.timings.prefill_s
    )
}

/// The path that the heaviest chunk took and why.
pub(crate) fn decision(decisions: &[Decision]) -> String {
    let Some(heaviest) = decisions.iter().max_by_key(|d| d.causal_pairs) else {
        return "none".to_string();
    };
    let same = decisions.iter().filter(|d| d.path == heaviest.path).count();
    let chunks = match decisions.len() {
        1 => String::new(),
        n => format!(" ({same} of {n} chunks)"),
    };
    let path = match heaviest.path {
        sparse_accelerate::Path::Dense => "dense",
        _ => heaviest.pattern.name(),
    };
    format!("{path}{chunks}: {}", heaviest.reason)
}

/// A measured peak and its source.
pub(crate) fn measured(memory: &MeasuredMemory) -> String {
    match memory.bytes {
        Some(bytes) => format!("{} ({})", Bytes(bytes), memory.source),
        None => format!("unknown ({} is not told here)", memory.source),
    }
}
