//! The choices of a layer's heads: kept on the device until somebody reads it.

use burn::tensor::{DType, Tensor};
use serde::{Deserialize, Serialize};

use sparse_accelerate_contract::{
    Choice, REPORT_WORDS, Report as Words, Why, group::TAIL_WORDS, report::CHOICES,
};

use crate::{error::AttentionError, index::TileIndex, span::Span};

/// The choice of one index head.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct HeadRecord {
    /// Decoder layer.
    pub layer: usize,
    /// Sequence of the batch.
    pub sequence: usize,
    /// Head that chose: a KV head, or a query head where those choose. Of a selector, head of its index.
    pub head: usize,
    /// The pattern.
    pub choice: Choice,
    /// Why.
    pub why: Why,
    /// Least share of the softmax mass, over the query heads that share the choice, that was expected on
    /// the kept keys; 0 to 1. Where blocks are chosen by their mass, the share outside the sinks that is aimed at. NaN
    /// where a selector chose, which promises none.
    pub predicted_recall: f32,
    /// The same as measured on the probe rows: `exp(LSE_sparse - LSE_dense)`, mean over rows. 1 where the
    /// head is dense. Of a head that fell short, what it had before it was made dense. Where blocks are chosen by their mass, the
    /// share that sampled rows keep outside the sinks. NaN where a
    /// selector chose, whose choice is not measured.
    pub recall: f32,
    /// Of a choice of blocks by their mass, the measured error of the head's output, over that of the layer's mean head
    /// (see [`crate::Selection::error`]); of a head that was above the limit, what it had before it was made dense. 0
    /// for other patterns, NaN where a selector chose.
    pub error: f32,
    /// Kept (query, key) pairs over all that the model lets rows see; 1 for dense.
    pub density: f32,
    /// Columns kept.
    pub columns: u32,
    /// Slashes of 16 offsets kept.
    pub slashes: u32,
    /// Key blocks kept, over all query blocks.
    pub blocks: u32,
    /// Prices of [`Choice::ALL`], in the unit of the cost model; infinite for what is not allowed or does
    /// not keep the floor.
    pub costs: [f32; CHOICES],
}

impl HeadRecord {
    /// Time of the head's attention over that of dense attention, by the cost model; of a head that was
    /// computed twice, both. `None` where dense has no price, because it was not allowed, or a selector or a
    /// group chose.
    pub fn time_over_dense(&self) -> Option<f32> {
        let dense = self.costs[Choice::Dense.number() as usize];
        let own = match self.why {
            Why::DenseLayer | Why::NotFinite => return Some(1.0),
            Why::MassHeld | Why::MassRaised | Why::ErrorAboveLimit => return None,
            Why::IndexSelector => return (self.choice == Choice::Dense).then_some(1.0),
            // What it had chosen is not recorded: the cheapest it was allowed.
            Why::MeasuredBelowFloor => {
                dense
                    + self.costs[1..]
                        .iter()
                        .copied()
                        .fold(f32::INFINITY, f32::min)
            }
            _ => self.costs[self.choice.number() as usize],
        };
        let share = own / dense;
        share.is_finite().then_some(share)
    }
}

/// The choices of one layer in one chunk.
#[derive(Debug, Clone)]
pub struct SelectionRecord {
    layer: usize,
    causal_pairs: u64,
    report: Report,
}

/// One of each layer and chunk: what the smaller variant wastes does not matter.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)]
enum Report {
    /// `[B * heads, REPORT_WORDS]` or with tails of query tiles, on the device; and the visible pairs of every
    /// sequence.
    Device(Tensor<2>, Vec<u64>),
    /// A layer that is dense by setting, with sequences and heads.
    Dense([usize; 2]),
    /// Choices that were made on the host.
    Host(Vec<HeadRecord>),
}

impl SelectionRecord {
    pub(crate) fn device(
        layer: usize,
        causal_pairs: u64,
        report: Tensor<2>,
        pairs: Vec<u64>,
    ) -> Self {
        Self {
            layer,
            causal_pairs,
            report: Report::Device(report, pairs),
        }
    }

    pub(crate) fn dense(layer: usize, causal_pairs: u64, shape: [usize; 2]) -> Self {
        Self {
            layer,
            causal_pairs,
            report: Report::Dense(shape),
        }
    }

    /// The record of a layer whose keys a selector chose; `index` is `None` where it computes them all.
    pub(crate) fn of_index(
        layer: usize,
        causal_pairs: u64,
        index: Option<&TileIndex>,
        spans: &[Span],
    ) -> Self {
        let heads = index.map_or(1, TileIndex::heads);
        let places = (0..spans.len()).flat_map(|b| (0..heads).map(move |h| (b, h)));
        let record = |(sequence, head): (usize, usize)| {
            let dense = HeadRecord {
                why: Why::IndexSelector,
                ..dense_head(layer, (sequence, head))
            };
            let Some(index) = index else {
                return dense;
            };
            let pairs = spans[sequence].causal_pairs();
            let kept = index.kept_pairs_of(sequence, head);
            HeadRecord {
                choice: Choice::Index,
                predicted_recall: f32::NAN,
                recall: f32::NAN,
                error: f32::NAN,
                density: (kept as f64 / pairs as f64) as f32,
                ..dense
            }
        };
        Self {
            layer,
            causal_pairs,
            report: Report::Host(places.map(record).collect()),
        }
    }

    /// Decoder layer.
    pub fn layer(&self) -> usize {
        self.layer
    }

    /// All (query, key) pairs that the chunk's rows may see, for one head: the weight of its densities.
    pub fn causal_pairs(&self) -> u64 {
        self.causal_pairs
    }

    /// Reads the choices of every sequence and head; waits for the device.
    ///
    /// # Errors
    /// [`AttentionError::Device`] if a launch before it failed.
    pub fn read(&self) -> Result<Vec<HeadRecord>, AttentionError> {
        match &self.report {
            Report::Dense([batch, heads]) => {
                let places = (0..*batch).flat_map(|b| (0..*heads).map(move |h| (b, h)));
                Ok(places.map(|at| dense_head(self.layer, at)).collect())
            }
            Report::Host(heads) => Ok(heads.clone()),
            Report::Device(report, pairs) => {
                let [rows, row_words] = report.dims();
                let heads = rows / pairs.len();
                let failed = |reason: String| AttentionError::Device {
                    op: "selection record",
                    reason,
                };
                let data = report.clone().cast(DType::F32).try_into_data();
                let data = data.map_err(|e| failed(e.to_string()))?;
                let words: Vec<f32> = data.try_to_vec().map_err(|e| failed(format!("{e:?}")))?;
                let rows = words.chunks_exact(row_words).enumerate();
                let head = |(at, row): (usize, &[f32])| {
                    let (row, tail) = row.split_at(REPORT_WORDS);
                    let (sequence, head) = (at / heads, at % heads);
                    let record = self.head((sequence, head), row)?;
                    Ok(match tail {
                        [] => record,
                        tail => with_tail(record, tail, pairs[sequence]),
                    })
                };
                rows.map(head).collect()
            }
        }
    }

    fn head(
        &self,
        (sequence, head): (usize, usize),
        row: &[f32],
    ) -> Result<HeadRecord, AttentionError> {
        let read = Words::read(row).map_err(|unknown| AttentionError::Device {
            op: "selection record",
            reason: format!("layer {}, head {head}: {unknown}", self.layer),
        })?;
        Ok(HeadRecord {
            layer: self.layer,
            sequence,
            head,
            choice: match read.why {
                Why::MeasuredBelowFloor => Choice::Dense,
                _ => read.choice,
            },
            why: read.why,
            predicted_recall: read.predicted_recall,
            recall: read.recall,
            error: read.error,
            density: read.density,
            columns: read.columns,
            slashes: read.slashes,
            blocks: read.blocks,
            costs: read.costs,
        })
    }
}

/// A record with what the tail of its report says: kept pairs and blocks of every query tile. Nothing in it has
/// a price.
fn with_tail(record: HeadRecord, tail: &[f32], pairs: u64) -> HeadRecord {
    let tiles = tail.chunks_exact(TAIL_WORDS);
    let (kept, blocks) = tiles.fold((0.0, 0.0), |(kept, blocks), tile| {
        (kept + f64::from(tile[0]), blocks + f64::from(tile[1]))
    });
    HeadRecord {
        density: (kept / pairs.max(1) as f64) as f32,
        blocks: blocks as u32,
        costs: [f32::INFINITY; CHOICES],
        ..record
    }
}

/// The record of a head of a layer that is dense by setting.
fn dense_head(layer: usize, (sequence, head): (usize, usize)) -> HeadRecord {
    HeadRecord {
        layer,
        sequence,
        head,
        choice: Choice::Dense,
        why: Why::DenseLayer,
        predicted_recall: 1.0,
        recall: 1.0,
        error: 0.0,
        density: 1.0,
        columns: 0,
        slashes: 0,
        blocks: 0,
        costs: [f32::INFINITY; CHOICES],
    }
}
