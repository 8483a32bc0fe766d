//! What the heads of a layer chose: kept on the device until somebody reads it.

use std::fmt;

use burn::tensor::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::REPORT_WORDS;
use crate::error::AttentionError;

/// The pattern a head chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// Every key.
    Dense,
    /// Sinks and window.
    Triangular,
    /// With columns and slashes.
    IntervalSlash,
    /// With blocks.
    BlockCluster,
    /// With columns, slashes and blocks.
    Hybrid,
}

impl Choice {
    /// Every choice, in the order of the device's numbers.
    pub const ALL: [Self; 5] = [
        Self::Dense,
        Self::Triangular,
        Self::IntervalSlash,
        Self::BlockCluster,
        Self::Hybrid,
    ];

    /// Its name, as in pattern files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Triangular => "triangular",
            Self::IntervalSlash => "interval-slash",
            Self::BlockCluster => "block-cluster",
            Self::Hybrid => "hybrid",
        }
    }
}

/// Why a head chose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// The cheapest that keeps the recall floor.
    Cheapest,
    /// Dense is the cheapest.
    DenseIsCheapest,
    /// Nothing that is allowed keeps the floor.
    NothingKeepsTheFloor,
    /// Scores of a probe row are not finite.
    NotFinite,
    /// The measured recall was below the floor: computed again, densely.
    MeasuredBelowFloor,
    /// The layer is one of the first, which are dense by setting.
    DenseLayer,
}

impl Why {
    const ALL: [Self; 6] = [
        Self::Cheapest,
        Self::DenseIsCheapest,
        Self::NothingKeepsTheFloor,
        Self::NotFinite,
        Self::MeasuredBelowFloor,
        Self::DenseLayer,
    ];
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cheapest => "cheapest that keeps the recall floor",
            Self::DenseIsCheapest => "dense is cheapest",
            Self::NothingKeepsTheFloor => "nothing else keeps the recall floor",
            Self::NotFinite => "scores are not finite",
            Self::MeasuredBelowFloor => "measured recall was below the floor",
            Self::DenseLayer => "one of the first layers, dense by setting",
        })
    }
}

/// What one head of an index chose.
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
    /// Kept causal (query, key) pairs over all; 1 for dense.
    pub density: f32,
    /// Columns kept.
    pub columns: u32,
    /// Slashes of 16 offsets kept.
    pub slashes: u32,
    /// Key blocks kept, over all query blocks.
    pub blocks: u32,
    /// Prices of [`Choice::ALL`], in the unit of the cost model; infinite for what is not allowed or does
    /// not keep the floor.
    pub costs: [f32; 5],
}

impl HeadRecord {
    /// Time of the head's attention over that of dense attention, by the cost model; of a head that was
    /// computed twice, both. `None` where dense has no price, because it was not allowed.
    pub fn time_over_dense(&self) -> Option<f32> {
        let dense = self.costs[0];
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
            _ => self.costs[self.choice as usize],
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

    /// Causal (query, key) pairs of the chunk, for one head: the weight of its densities.
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
            costs: [f32::INFINITY; 5],
        }
    }

    fn head(
        &self,
        (sequence, head): (usize, usize),
        row: &[f32],
    ) -> Result<HeadRecord, AttentionError> {
        let known = |word: usize| AttentionError::Device {
            op: "selection record",
            reason: format!(
                "word {word} of layer {}, head {head} is {}, which no selection writes",
                self.layer, row[word]
            ),
        };
        let number = |word: usize, most: usize| {
            let value = row[word];
            let fits = value >= 0.0 && value < most as f32 && value.fract() == 0.0;
            fits.then_some(value as usize).ok_or_else(|| known(word))
        };
        let count = |word: usize| row[word].max(0.0) as u32;
        let why = Why::ALL[number(1, Why::ALL.len())?];
        let choice = Choice::ALL[number(0, Choice::ALL.len())?];
        Ok(HeadRecord {
            layer: self.layer,
            sequence,
            head,
            choice: match why {
                Why::MeasuredBelowFloor => Choice::Dense,
                _ => choice,
            },
            why,
            predicted_recall: row[2],
            recall: row[3],
            density: row[4],
            columns: count(5),
            slashes: count(6),
            blocks: count(7),
            costs: [row[8], row[9], row[10], row[11], row[12]],
        })
    }
}
