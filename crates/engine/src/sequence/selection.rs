//! The choices of the heads in each chunk, read from the device after the prompt is done.

use std::ops::Range;

use serde::Serialize;
use sparse_accelerate::{Decision, HeadRecord, SelectionRecord};

use crate::error::EngineError;

/// The choices of one chunk.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChunkSelection {
    /// Prompt tokens of the chunk.
    pub tokens: Range<usize>,
    /// Choices of every head, layer by layer.
    pub heads: Vec<HeadRecord>,
}

/// Decisions of the chunks so far, with their heads' choices still on the device.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    chunks: Vec<(Range<usize>, Decision, Vec<SelectionRecord>)>,
}

impl Decisions {
    /// Keeps the decision and the choices of a chunk.
    pub(super) fn keep(
        &mut self,
        tokens: Range<usize>,
        decision: Decision,
        selection: Vec<SelectionRecord>,
    ) {
        self.chunks.push((tokens, decision, selection));
    }

    /// Reads the choices, and the densities that follow from them into the decisions.
    pub(super) fn read(self) -> Result<(Vec<Decision>, Vec<ChunkSelection>), EngineError> {
        let (mut decisions, mut selections) = (Vec::new(), Vec::new());
        for (tokens, mut decision, records) in self.chunks {
            let mut heads = Vec::new();
            let mut kept = 0.0;
            for record in &records {
                let layer = record.read()?;
                let density: f64 = layer.iter().map(|head| f64::from(head.density)).sum();
                kept += density / layer.len() as f64;
                heads.extend(layer);
            }
            if !records.is_empty() {
                // Imposed blocks have a density, whatever was selected.
                decision.density.get_or_insert(kept / records.len() as f64);
                selections.push(ChunkSelection { tokens, heads });
            }
            decisions.push(decision);
        }
        Ok((decisions, selections))
    }
}

/// Mean density of the chunks, weighted by their causal pairs.
pub(super) fn density(decisions: &[Decision]) -> f64 {
    let known = decisions
        .iter()
        .filter_map(|d| Some((d.density?, d.causal_pairs as f64)));
    let (kept, all) = known.fold((0.0, 0.0), |(kept, all), (density, pairs)| {
        (kept + density * pairs, all + pairs)
    });
    if all > 0.0 { kept / all } else { 1.0 }
}
