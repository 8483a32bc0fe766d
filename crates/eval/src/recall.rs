//! What a pattern keeps of each head's attention, seen from inside a dense pass.
//!
//! For sampled rows, on the queries and the cache of the dense pass:
//!
//!   recall = exp(LSE_sparse - LSE_dense)        share of the softmax mass on the kept keys
//!   error  = |o_sparse - o_dense| / |o_dense|   over all sampled rows of a head
//!
//! (Qwen2.5-1M, arXiv 2501.15383, uses this recall to set budgets.) Each row gets plans of its own, one
//! query row at its place in the prompt, so what a row sees is exactly what it sees in the pass.

use std::{collections::BTreeSet, time::Instant};

use burn::tensor::{DType, Device, Tensor};
use sparse_accelerate::{AttentionError, AttentionPlan, AttentionSettings, Span, attend_with_lse};
use sparse_accelerate_models::{LayerObserver, LayerView, ModelError};

/// The last rows that are always looked at.
const LAST: usize = 4;

/// Rows that are looked at: `count` spread evenly over a prompt of `length`, the last few among them.
pub(crate) fn sampled_rows(length: usize, count: usize) -> Vec<usize> {
    let last = LAST.min(count).min(length);
    let spread = (count - last) as u64;
    let rows = (0..spread).map(|i| ((2 * i + 1) * length as u64 / (2 * spread)) as usize);
    let rows: BTreeSet<usize> = rows.chain(length - last..length).collect();
    rows.into_iter().collect()
}

/// One query head with one attention.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HeadSums {
    rows: usize,
    recall: f64,
    recall_min: f64,
    /// Squares of output differences, and of dense outputs.
    difference: f64,
    dense: f64,
}

impl HeadSums {
    fn add(&mut self, recall: f64, difference: f64, dense: f64) {
        // Rounding of two sums may put it above 1 by a few units of f32.
        let recall = recall.min(1.0);
        self.recall_min = match self.rows {
            0 => recall,
            _ => self.recall_min.min(recall),
        };
        self.rows += 1;
        self.recall += recall;
        self.difference += difference;
        self.dense += dense;
    }

    /// Mean over the rows.
    pub(crate) fn recall(&self) -> f64 {
        self.recall / self.rows as f64
    }

    /// Least of the rows.
    pub(crate) fn recall_min(&self) -> f64 {
        self.recall_min
    }

    /// Relative L2 error of the output.
    pub(crate) fn error(&self) -> f64 {
        match self.dense > 0.0 {
            true => (self.difference / self.dense).sqrt(),
            false => self.difference.sqrt(),
        }
    }
}

/// A row with its plans: dense, and one for each attention.
#[derive(Debug)]
struct Row {
    at: usize,
    dense: AttentionPlan,
    others: Vec<AttentionPlan>,
}

/// Looks at a dense pass for several attentions.
#[derive(Debug)]
pub(crate) struct RecallObserver {
    rows: Vec<Row>,
    attentions: usize,
    /// `[attention][layer][head]`.
    pub(crate) heads: Vec<Vec<Vec<HeadSums>>>,
    /// Seconds spent here.
    pub(crate) seconds: f64,
}

impl RecallObserver {
    /// Makes the plans of `count` rows of a prompt of `length`.
    pub(crate) fn new(
        length: usize,
        count: usize,
        attentions: &[AttentionSettings],
        device: &Device,
    ) -> Result<Self, AttentionError> {
        let mut rows = Vec::new();
        for at in sampled_rows(length, count) {
            let span = [Span {
                query_len: 1,
                kv_len: at + 1,
                prompt_len: length,
            }];
            let plan = |settings| AttentionPlan::new(settings, &span, device);
            rows.push(Row {
                at,
                dense: plan(&AttentionSettings::dense())?,
                others: attentions.iter().map(plan).collect::<Result<_, _>>()?,
            });
        }
        Ok(Self {
            rows,
            attentions: attentions.len(),
            heads: vec![Vec::new(); attentions.len()],
            seconds: 0.0,
        })
    }

    fn look(&mut self, view: &LayerView<'_>) -> Result<(), ModelError> {
        let span = view.plan.spans()[0];
        let (from, to) = (span.offset(), span.kv_len);
        let rows: Vec<&Row> = self
            .rows
            .iter()
            .filter(|r| (from..to).contains(&r.at))
            .collect();
        let [_, heads, _, dim] = view.query.dims();
        for layers in &mut self.heads {
            while layers.len() <= view.layer {
                layers.push(vec![HeadSums::default(); heads]);
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        let dense = Outcome::of(view, from, rows.iter().map(|row| (row.at, &row.dense)))?;
        for attention in 0..self.attentions {
            let plans = rows.iter().map(|row| (row.at, &row.others[attention]));
            let other = Outcome::of(view, from, plans)?;
            let sums = &mut self.heads[attention][view.layer];
            for (head, sums) in sums.iter_mut().enumerate() {
                for row in 0..rows.len() {
                    let at = head * rows.len() + row;
                    let recall = (f64::from(other.lse[at]) - f64::from(dense.lse[at])).exp();
                    let values = at * dim..(at + 1) * dim;
                    let pairs = other.output[values.clone()]
                        .iter()
                        .zip(&dense.output[values]);
                    let (difference, whole) = pairs.fold((0.0, 0.0), |(d, w), (s, o)| {
                        let (s, o) = (f64::from(*s), f64::from(*o));
                        (d + (s - o) * (s - o), w + o * o)
                    });
                    sums.add(recall, difference, whole);
                }
            }
        }
        Ok(())
    }
}

impl LayerObserver for RecallObserver {
    fn layer(&mut self, view: &LayerView<'_>) -> Result<(), ModelError> {
        // What was queued before is the pass's own time.
        view.query.device().sync().map_err(failed)?;
        let start = Instant::now();
        let result = self.look(view);
        self.seconds += start.elapsed().as_secs_f64();
        result
    }
}

/// Attention of some rows: `[heads, rows, dim]` and `[heads, rows]`.
struct Outcome {
    output: Vec<f32>,
    lse: Vec<f32>,
}

impl Outcome {
    /// `from` is the position of the chunk's first row.
    fn of<'p>(
        view: &LayerView<'_>,
        from: usize,
        plans: impl Iterator<Item = (usize, &'p AttentionPlan)>,
    ) -> Result<Self, ModelError> {
        let (keys, values) = (view.cache.key(view.layer), view.cache.value(view.layer));
        let (mut outputs, mut lses) = (Vec::new(), Vec::new());
        for (at, plan) in plans {
            let query = view.query.clone().slice_dim(2, at - from..at - from + 1);
            let (output, lse) = attend_with_lse(query, keys, values, plan)?;
            outputs.push(output);
            lses.push(lse);
        }
        Ok(Self {
            output: read(Tensor::cat(outputs, 2))?,
            lse: read(Tensor::cat(lses, 2))?,
        })
    }
}

fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, ModelError> {
    let data = tensor.cast(DType::F32).try_into_data().map_err(failed)?;
    data.try_to_vec()
        .map_err(|error| failed(format!("{error:?}")))
}

fn failed(reason: impl ToString) -> ModelError {
    ModelError::Observer {
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_spread_and_end_with_the_last() {
        assert_eq!(sampled_rows(100, 8), [12, 37, 62, 87, 96, 97, 98, 99]);
        assert_eq!(sampled_rows(3, 32), [0, 1, 2]);
        assert_eq!(sampled_rows(1000, 2), [998, 999]);
        assert_eq!(sampled_rows(1, 1), [0]);
    }

    #[test]
    fn sums_are_means_and_least() {
        let mut sums = HeadSums::default();
        sums.add(1.0 + 1e-6, 0.0, 3.0);
        sums.add(0.5, 1.0, 1.0);
        assert_eq!((sums.recall(), sums.recall_min()), (0.75, 0.5));
        assert_eq!(sums.error(), 0.5);
    }
}
