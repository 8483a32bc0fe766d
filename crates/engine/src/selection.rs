//! What the heads of each chunk chose, read from the device after the prompt is done.

use std::ops::Range;

use serde::Serialize;
use sparse_accelerate::{Decision, HeadRecord};
use sparse_accelerate_models::ChunkOutput;

use crate::error::EngineError;

/// The choices of one chunk.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChunkSelection {
    /// Prompt tokens of the chunk.
    pub tokens: Range<usize>,
    /// Choices of every head, layer by layer.
    pub heads: Vec<HeadRecord>,
}

/// Chunks as they ran, their choices still on the device.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    chunks: Vec<(
        Range<usize>,
        Decision,
        Vec<sparse_accelerate::SelectionRecord>,
    )>,
}

impl Chunks {
    /// Keeps what a chunk gave and hands on its hidden states.
    pub(crate) fn push(
        &mut self,
        tokens: Range<usize>,
        output: ChunkOutput,
    ) -> burn::tensor::Tensor<2> {
        self.keep(tokens, output.decision, output.selection);
        output.last_hidden
    }

    /// Keeps the choices of a chunk.
    pub(crate) fn keep(
        &mut self,
        tokens: Range<usize>,
        decision: Decision,
        selection: Vec<sparse_accelerate::SelectionRecord>,
    ) {
        self.chunks.push((tokens, decision, selection));
    }

    /// Reads the choices, and the densities that follow from them into the decisions.
    pub(crate) fn read(self) -> Result<(Vec<Decision>, Vec<ChunkSelection>), EngineError> {
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
