//! Attention whose heads, or a selector, choose the keys, on the queries and the cache of a dense pass.
//!
//! A choice belongs to a whole chunk, so a whole chunk is run, and the sampled rows are taken out of it.

use burn::tensor::Device;
use sparse_accelerate::{
    AttentionError, AttentionPlan, AttentionSettings, Choice, HeadRecord, Heads, PooledKeys, Span,
    Visible, attend_selected, select::Why,
};
use sparse_accelerate_models::{LayerView, ModelError};

use super::rows::Outcome;

/// The plan of a chunk, if keys are chosen in it; `None` where rows have plans of their own.
pub(crate) fn chunk_plan(
    settings: &AttentionSettings,
    spans: &[Span],
    heads: Heads,
    visible: Visible,
    device: &Device,
) -> Result<Option<AttentionPlan>, AttentionError> {
    // The index of a Triangular chunk is not needed, and costs time.
    if !settings.selects() {
        return Ok(None);
    }
    let plan = AttentionPlan::new(settings, spans, heads, visible, device)?;
    Ok(plan.selects().then_some(plan))
}

/// `rows` of a chunk, counted from its first, and what the heads chose in it. `pooled` is that of the
/// layer, made here if there is none; a selector needs none.
pub(crate) fn rows(
    view: &LayerView<'_>,
    plan: &AttentionPlan,
    pooled: &mut Option<PooledKeys>,
    rows: &[usize],
) -> Result<(Outcome, Vec<HeadRecord>), ModelError> {
    let (keys, values) = (view.cache.key(view.layer)?, view.cache.value(view.layer)?);
    let pooled = match plan.selector() {
        Some(_) => None,
        None => Some(pooled.get_or_insert_with(|| PooledKeys::new(keys.dims(), &keys.device()))),
    };
    let query = view.query.clone();
    let layer = plan.layer(view.layer)?;
    let selected = attend_selected(query, &keys, &values, pooled, &layer)?;
    let outcome = Outcome::of_chunk(selected.output, selected.lse, rows)?;
    Ok((outcome, selected.record.read()?))
}

/// The record that holds for a query head, of records of a batch of one.
pub(crate) fn of_head(records: &[HeadRecord], head: usize, heads: usize) -> &HeadRecord {
    &records[head * records.len() / heads]
}

/// Mass kept by what ran: everything where a head was made dense after all, and `own`, that of the row, where a
/// selector chose, which measures nothing.
pub(crate) fn kept(record: &HeadRecord, own: f64) -> f64 {
    match (record.choice, record.why) {
        (Choice::Dense, _) | (_, Why::MeasuredBelowFloor) => 1.0,
        (Choice::Index, _) => own,
        _ => f64::from(record.recall),
    }
}

/// Choice of a query head, over the chunks that were looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Chosen {
    /// In the chunk with the most causal pairs.
    pub(crate) choice: Choice,
    heaviest: u64,
    rows: usize,
    predicted: f64,
    lse: f64,
    /// Pairs kept, and all.
    pairs: (f64, f64),
}

impl Chosen {
    /// Adds a chunk of `pairs` causal pairs, of which `rows` were looked at; `lse` is the sum of their
    /// `|LSE - LSE dense|`.
    pub(crate) fn add(
        held: &mut Option<Self>,
        record: &HeadRecord,
        pairs: u64,
        rows: usize,
        lse: f64,
    ) {
        let chosen = held.get_or_insert(Self {
            choice: record.choice,
            heaviest: 0,
            rows: 0,
            predicted: 0.0,
            lse: 0.0,
            pairs: (0.0, 0.0),
        });
        if pairs > chosen.heaviest {
            (chosen.choice, chosen.heaviest) = (record.choice, pairs);
        }
        chosen.rows += rows;
        chosen.predicted += rows as f64 * f64::from(record.predicted_recall);
        chosen.lse += lse;
        chosen.pairs.0 += pairs as f64 * f64::from(record.density);
        chosen.pairs.1 += pairs as f64;
    }

    /// Mean over the rows; `None` where a selector chose, which predicts none.
    pub(crate) fn predicted_recall(&self) -> Option<f64> {
        let mean = self.predicted / self.rows as f64;
        mean.is_finite().then_some(mean)
    }

    /// Mean over the rows of `|LSE - LSE dense|`.
    pub(crate) fn lse_error(&self) -> f64 {
        self.lse / self.rows as f64
    }

    /// Causal pairs kept over all.
    pub(crate) fn density(&self) -> f64 {
        self.pairs.0 / self.pairs.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(choice: Choice, why: Why, predicted_recall: f32, density: f32) -> HeadRecord {
        HeadRecord {
            layer: 0,
            sequence: 0,
            head: 0,
            choice,
            why,
            predicted_recall,
            recall: 0.75,
            error: 0.0,
            density,
            columns: 0,
            slashes: 0,
            blocks: 0,
            costs: [1.0; 5],
        }
    }

    #[test]
    fn query_heads_find_the_head_that_chose() {
        let records = [0, 1].map(|head| HeadRecord {
            head,
            ..record(Choice::Hybrid, Why::Cheapest, 1.0, 1.0)
        });
        let found = (0..6).map(|head| of_head(&records, head, 6).head);
        assert_eq!(found.collect::<Vec<_>>(), [0, 0, 0, 1, 1, 1]);
    }

    #[test]
    fn a_head_made_dense_keeps_everything() {
        let kept = |choice, why| super::kept(&record(choice, why, 1.0, 0.1), 0.5);
        assert_eq!(kept(Choice::Hybrid, Why::Cheapest), 0.75);
        assert_eq!(kept(Choice::Hybrid, Why::MeasuredBelowFloor), 1.0);
        assert_eq!(kept(Choice::Dense, Why::DenseIsCheapest), 1.0);
        // What a selector's rows keep is seen on the rows.
        assert_eq!(kept(Choice::Index, Why::IndexSelector), 0.5);
        assert_eq!(kept(Choice::Dense, Why::IndexSelector), 1.0);
    }

    #[test]
    fn chunks_weigh_by_rows_and_pairs() {
        let mut held = None;
        let small = record(Choice::Dense, Why::DenseIsCheapest, 1.0, 1.0);
        let large = record(Choice::BlockCluster, Why::Cheapest, 0.8, 0.2);
        Chosen::add(&mut held, &small, 100, 1, 0.25);
        Chosen::add(&mut held, &large, 300, 3, 0.75);
        let chosen = held.unwrap();
        assert_eq!(chosen.choice, Choice::BlockCluster);
        assert!((chosen.predicted_recall().unwrap() - 0.85).abs() < 1e-6);
        assert!((chosen.density() - 0.4).abs() < 1e-6);
        assert_eq!(chosen.lse_error(), 0.25);
        let mut held = None;
        let unknown = record(Choice::Index, Why::IndexSelector, f32::NAN, 0.25);
        Chosen::add(&mut held, &unknown, 100, 1, 0.0);
        assert_eq!(held.unwrap().predicted_recall(), None);
    }
}
