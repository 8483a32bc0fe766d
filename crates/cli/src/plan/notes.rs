//! Which numbers of a plan are measured, and which are stated.

use serde::Serialize;
use sparse_accelerate_engine::{
    estimate::{Density, LINK},
    gpus::Source,
    memory::{Bytes, RUNTIME},
    planner::{PlanDevice, PlanRequest},
};

/// One number and where it comes from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Note {
    /// `computed`, `measured`, `stated` or `given`.
    pub(super) kind: &'static str,
    pub(super) text: String,
}

/// Lists the notes on a request's numbers, each once.
pub(super) fn notes(request: &PlanRequest) -> Vec<Note> {
    let checked = match request.footprint.gpu {
        true => {
            "; within 5 % of the peaks measured on one and two H200 (benches/runs/2026-11-26-h200-two-devices)"
        }
        false => "",
    };
    let mut notes = vec![Note {
        kind: "computed",
        text: format!("weights, KV cache and workspace, from shapes{checked}"),
    }];
    let mut add = |kind, text: String| {
        let note = Note { kind, text };
        if !notes.contains(&note) {
            notes.push(note);
        }
    };
    if request.footprint.gpu {
        let text = format!("{} a card for the CUDA context and kernels", Bytes(RUNTIME));
        add("stated", text);
    }
    for device in &request.devices {
        for (what, source) in lines(device) {
            match source {
                Source::Measured(how) => add("measured", format!("{what} ({how})")),
                Source::Stated(how) => add("stated", format!("{what} ({how})")),
                Source::Given => add("given", what),
            }
        }
    }
    match request.density {
        Density::Given(share) => add("given", format!("density {share}")),
        Density::ByLength => add(
            "stated",
            "density by length, as published for Llama-3.1-8B (arXiv 2608.19758); your model and text may need \
             more"
                .into(),
        ),
    }
    if request.devices.len() > 1 {
        let rate = LINK / 1e9;
        add("stated", format!("{rate:.0} GB/s from device to device"));
    }
    if request.footprint.element == 4 && request.footprint.gpu {
        let text = "rates of cards are those of bf16; products in f32 are several times slower";
        add("stated", text.into());
    }
    add(
        "stated",
        "the cost of choosing keys is not in the sparse times; where nothing can be left out it was 2 % of the \
         dense time on one H100"
            .into(),
    );
    notes
}

fn lines(device: &PlanDevice) -> Vec<(String, Source)> {
    let name = &device.name;
    let mut lines = Vec::new();
    if let Some(memory) = device.memory {
        let text = format!("{name} has {}", Bytes(memory));
        lines.push((text, device.memory_source));
    }
    let rates = &device.rates;
    let linear = format!(
        "{name} computes {} TFLOP/s beside attention",
        tflops(rates.linear)
    );
    lines.push((linear, device.linear_source));
    let sparse = match rates.dense == rates.sparse {
        true => String::new(),
        false => format!(", sparsely at {}", tflops(rates.sparse)),
    };
    let attention = format!("{name} attends at {} TFLOP/s{sparse}", tflops(rates.dense));
    lines.push((attention, device.attention_source));
    lines
}

fn tflops(rate: f64) -> String {
    match rate / 1e12 {
        rate if rate >= 1.0 => format!("{rate:.1}"),
        rate => format!("{rate:.4}"),
    }
}
