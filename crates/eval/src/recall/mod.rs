//! Recall and error of each head's attention under a pattern, seen from inside a dense pass.
//!
//! For sampled rows, on the queries and the cache of the dense pass:
//!
//!   recall = exp(LSE_sparse - LSE_dense)        share of the softmax mass on the kept keys
//!   error  = |o_sparse - o_dense| / |o_dense|   over all sampled rows of a head
//!
//! (Qwen2.5-1M, arXiv 2501.15383, uses this recall to set budgets.) A pattern that is known beforehand
//! gets plans of its own for each row, one query row at its place in the prompt, so what a row sees is
//! exactly what it sees in the pass. Heads that choose their keys choose them for a whole chunk; it is
//! run whole, and their recall is the one they measured themselves, since with a correction their LSE
//! counts more than the kept keys. A selector outside chooses for a whole chunk too, and measures nothing: its
//! recall is that of the rows.

mod rows;
mod selected;

pub(crate) use rows::{Outcome, failed, relative, sampled_rows};
pub(crate) use selected::{Chosen, chunk_plan};

use std::time::Instant;

use burn::tensor::Device;
use sparse_accelerate::{
    AttentionError, AttentionPlan, AttentionSettings, Heads, PooledKeys, Span, Visible,
};
use sparse_accelerate_models::{LayerObserver, LayerView, ModelError};

/// Attention of a chunk whose heads choose.
pub(crate) use selected::rows as selected_rows;

/// One query head with one attention.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HeadSums {
    rows: usize,
    recall: f64,
    recall_min: f64,
    /// Squares of output differences, and of dense outputs.
    difference: f64,
    dense: f64,
    /// Choice of the head, where heads choose.
    pub(crate) chosen: Option<Chosen>,
}

impl HeadSums {
    fn add(&mut self, recall: f64, difference: f64, dense: f64) {
        // Rounding of two sums may put it above 1 by a few units of f32.
        let recall = if recall > 1.0 { 1.0 } else { recall };
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
        relative(self.difference, self.dense)
    }
}

/// A row with its plans: dense, and one for each attention.
#[derive(Debug)]
struct Row {
    at: usize,
    dense: AttentionPlan,
    others: Vec<AttentionPlan>,
}

/// One attention, and what is kept of it between layers and chunks.
#[derive(Debug)]
struct Compared {
    settings: AttentionSettings,
    /// Of the chunk in hand, where heads choose.
    plan: Option<AttentionPlan>,
    /// By layer.
    pooled: Vec<Option<PooledKeys>>,
}

/// Looks at a dense pass for several attentions.
#[derive(Debug)]
pub(crate) struct RecallObserver {
    rows: Vec<Row>,
    attentions: Vec<Compared>,
    model_heads: Heads,
    visible: Visible,
    /// The chunk that the attentions' plans are for.
    planned: Option<Span>,
    /// `[attention][layer][head]`.
    pub(crate) heads: Vec<Vec<Vec<HeadSums>>>,
    /// Seconds spent here.
    pub(crate) seconds: f64,
}

impl RecallObserver {
    /// Makes the plans of `count` rows of a prompt of `length`; `model_heads` and `visible` are those of the model.
    pub(crate) fn new(
        length: usize,
        count: usize,
        attentions: &[AttentionSettings],
        model_heads: Heads,
        visible: Visible,
        device: &Device,
    ) -> Result<Self, AttentionError> {
        let mut rows = Vec::new();
        for at in sampled_rows(length, count) {
            let span = [Span {
                query_len: 1,
                kv_len: at + 1,
                prompt_len: length,
            }];
            let plan = |settings| AttentionPlan::new(settings, &span, model_heads, visible, device);
            rows.push(Row {
                at,
                dense: plan(&AttentionSettings::dense())?,
                others: attentions.iter().map(plan).collect::<Result<_, _>>()?,
            });
        }
        let compared = attentions.iter().map(|settings| Compared {
            settings: settings.clone(),
            plan: None,
            pooled: Vec::new(),
        });
        Ok(Self {
            rows,
            attentions: compared.collect(),
            model_heads,
            visible,
            planned: None,
            heads: vec![Vec::new(); attentions.len()],
            seconds: 0.0,
        })
    }

    /// Makes room for the layer, and plans for the chunk.
    fn prepare(&mut self, view: &LayerView<'_>) -> Result<(), ModelError> {
        let heads = view.query.dims()[1];
        for layers in &mut self.heads {
            while layers.len() <= view.layer {
                layers.push(vec![HeadSums::default(); heads]);
            }
        }
        let spans = view.plan.spans();
        if self.planned != Some(spans[0]) {
            for attention in &mut self.attentions {
                let settings = &attention.settings;
                let device = view.query.device();
                let (heads, visible) = (self.model_heads, self.visible);
                attention.plan = chunk_plan(settings, spans, heads, visible, &device)?;
            }
            self.planned = Some(spans[0]);
        }
        for attention in &mut self.attentions {
            if attention.pooled.len() <= view.layer {
                attention.pooled.resize_with(view.layer + 1, || None);
            }
        }
        Ok(())
    }

    fn look(&mut self, view: &LayerView<'_>) -> Result<(), ModelError> {
        self.prepare(view)?;
        let span = view.plan.spans()[0];
        let (from, to) = (span.offset(), span.kv_len);
        let inside = self.rows.iter().filter(|r| (from..to).contains(&r.at));
        let rows: Vec<&Row> = inside.collect();
        if rows.is_empty() {
            return Ok(());
        }
        let dense = Outcome::by_row(view, from, rows.iter().map(|row| (row.at, &row.dense)))?;
        for (index, attention) in self.attentions.iter_mut().enumerate() {
            let sums = &mut self.heads[index][view.layer];
            let Some(plan) = &attention.plan else {
                let plans = rows.iter().map(|row| (row.at, &row.others[index]));
                let other = Outcome::by_row(view, from, plans)?;
                add_rows(sums, &other, &dense);
                continue;
            };
            let inside: Vec<usize> = rows.iter().map(|row| row.at - from).collect();
            let pooled = &mut attention.pooled[view.layer];
            let (other, records) = selected::rows(view, plan, pooled, &inside)?;
            let pairs = plan.decision().causal_pairs;
            let heads = sums.len();
            for (head, sums) in sums.iter_mut().enumerate() {
                let record = selected::of_head(&records, head, heads);
                let mut lse = 0.0;
                for row in 0..other.rows {
                    let (difference, whole) = other.apart(&dense, head, row);
                    let apart = other.lse_apart(&dense, head, row);
                    sums.add(selected::kept(record, apart.exp()), difference, whole);
                    lse += apart.abs();
                }
                Chosen::add(&mut sums.chosen, record, pairs, other.rows, lse);
            }
        }
        Ok(())
    }
}

/// Adds rows of a pattern that was known beforehand, `[head]`.
fn add_rows(sums: &mut [HeadSums], other: &Outcome, dense: &Outcome) {
    for (head, sums) in sums.iter_mut().enumerate() {
        for row in 0..other.rows {
            let recall = other.lse_apart(dense, head, row).exp();
            let (difference, whole) = other.apart(dense, head, row);
            sums.add(recall, difference, whole);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_means_and_least() {
        let mut sums = HeadSums::default();
        sums.add(1.0 + 1e-6, 0.0, 3.0);
        sums.add(0.5, 1.0, 1.0);
        assert_eq!((sums.recall(), sums.recall_min()), (0.75, 0.5));
        assert_eq!(sums.error(), 0.5);
    }
}
