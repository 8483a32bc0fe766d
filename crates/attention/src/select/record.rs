//! The choices of a layer's heads: kept on the device until somebody reads it.

use burn::tensor::{DType, Tensor};
use serde::{Deserialize, Serialize};

use sparse_accelerate_contract::{Choice, REPORT_WORDS, Report as Words, Why, report::CHOICES};

use crate::error::AttentionError;

/// The choice of one index head.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct HeadRecord {
    /// Decoder layer.
    pub layer: usize,
    /// Sequence of the batch.
    pub sequence: usize,
    /// Head that chose: a KV head, or a query head where those choose.
    pub head: usize,
    /// The pattern.
    pub choice: Choice,
    /// Why.
    pub why: Why,
    /// Least share of the softmax mass, over the query heads that share the choice, that was expected on
    /// the kept keys; 0 to 1.
    pub predicted_recall: f32,
    /// The same as measured on the probe rows: `exp(LSE_sparse - LSE_dense)`, mean over rows. 1 where the
    /// head is dense. Of a head that fell below the floor, what it had before it was made dense.
    pub recall: f32,
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
    /// computed twice, both. `None` where dense has no price, because it was not allowed.
    pub fn time_over_dense(&self) -> Option<f32> {
        let dense = self.costs[Choice::Dense.number() as usize];
        let own = match self.why {
            Why::DenseLayer | Why::NotFinite => return Some(1.0),
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
    /// `[B * heads, REPORT_WORDS]` on the device.
    Device(Tensor<2>, [usize; 2]),
    /// A layer that is dense by setting, with sequences and heads.
    Dense([usize; 2]),
}

impl SelectionRecord {
    pub(crate) fn device(
        layer: usize,
        causal_pairs: u64,
        report: Tensor<2>,
        [batch, heads]: [usize; 2],
    ) -> Self {
        Self {
            layer,
            causal_pairs,
            report: Report::Device(report, [batch, heads]),
        }
    }

    pub(crate) fn dense(layer: usize, causal_pairs: u64, shape: [usize; 2]) -> Self {
        Self {
            layer,
            causal_pairs,
            report: Report::Dense(shape),
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
                Ok(places.map(|at| self.dense_head(at)).collect())
            }
            Report::Device(report, [_, heads]) => {
                let failed = |reason: String| AttentionError::Device {
                    op: "selection record",
                    reason,
                };
                let data = report.clone().cast(DType::F32).try_into_data();
                let data = data.map_err(|e| failed(e.to_string()))?;
                let words: Vec<f32> = data.try_to_vec().map_err(|e| failed(format!("{e:?}")))?;
                let rows = words.chunks_exact(REPORT_WORDS).enumerate();
                rows.map(|(at, row)| self.head((at / heads, at % heads), row))
                    .collect()
            }
        }
    }

    fn dense_head(&self, (sequence, head): (usize, usize)) -> HeadRecord {
        HeadRecord {
            layer: self.layer,
            sequence,
            head,
            choice: Choice::Dense,
            why: Why::DenseLayer,
            predicted_recall: 1.0,
            recall: 1.0,
            density: 1.0,
            columns: 0,
            slashes: 0,
            blocks: 0,
            costs: [f32::INFINITY; CHOICES],
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
            density: read.density,
            columns: read.columns,
            slashes: read.slashes,
            blocks: read.blocks,
            costs: read.costs,
        })
    }
}
