//! Every candidate in every head, on the queries and the cache of a dense pass.

use burn::tensor::Device;
use sparse_accelerate::{
    AttentionError, AttentionMode, AttentionPlan, AttentionSettings, HeadPatterns, Heads, Pattern,
    PooledKeys, Selection, Span, Visible,
    select::{LEAST_ROWS, Prices},
};
use sparse_accelerate_models::{LayerObserver, LayerView, ModelError};

use super::assign::Offer;
use crate::recall::{Outcome, chunk_plan, failed, relative, sampled_rows, selected_rows};

/// Price of a dense tile at which a head is never dense by price, so that a candidate is judged by itself.
const NO_DENSE: f32 = 1e9;

/// One candidate in one KV head.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    /// Squares of output differences, and of dense outputs.
    difference: f64,
    dense: f64,
    /// Pairs kept, and all.
    kept: f64,
    pairs: f64,
}

/// Looks at a dense pass for every candidate.
#[derive(Debug)]
pub(super) struct CandidateObserver {
    /// Positions, each with a dense plan.
    rows: Vec<(usize, AttentionPlan)>,
    candidates: Vec<AttentionSettings>,
    heads: Heads,
    visible: Visible,
    /// The chunk in hand, and the candidates' plans for it.
    planned: Option<(Span, Vec<AttentionPlan>)>,
    /// By layer. One for all candidates: it depends on nothing but the keys and values.
    pooled: Vec<Option<PooledKeys>>,
    /// `[layer][KV head][candidate]`.
    sums: Vec<Vec<Vec<Sums>>>,
}

/// Sizes of a model that a search needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Model<'a> {
    pub(super) layers: usize,
    pub(super) heads: Heads,
    pub(super) visible: Visible,
    pub(super) device: &'a Device,
}

impl CandidateObserver {
    /// Makes the plans of `count` rows of a prompt of `length`. No candidate may be dense.
    pub(super) fn new(
        length: usize,
        count: usize,
        candidates: &[Pattern],
        selection: &Selection,
        model: Model<'_>,
    ) -> Result<Self, AttentionError> {
        let row = |at: usize| {
            let span = [Span {
                query_len: 1,
                kv_len: at + 1,
                prompt_len: length,
            }];
            let dense = AttentionSettings::dense();
            let (heads, visible) = (model.heads, model.visible);
            let plan = AttentionPlan::new(&dense, &span, heads, visible, model.device)?;
            Ok((at, plan))
        };
        let rows = sampled_rows(length, count).into_iter().map(row);
        let settings = candidates.iter().map(|pattern| {
            let heads = vec![vec![*pattern; model.heads.kv]; model.layers];
            as_it_is(*pattern, heads.into(), selection)
        });
        let none = vec![Sums::default(); candidates.len()];
        Ok(Self {
            rows: rows.collect::<Result<_, AttentionError>>()?,
            candidates: settings.collect(),
            heads: model.heads,
            visible: model.visible,
            planned: None,
            pooled: vec![None; model.layers],
            sums: vec![vec![none; model.heads.kv]; model.layers],
        })
    }

    /// Price and error of every candidate, `[layer][KV head][candidate]`; `None` if no chunk with a
    /// sampled row was long enough to select.
    pub(super) fn offers(&self) -> Option<Vec<Vec<Vec<Offer>>>> {
        let offer = |sums: &Sums| {
            (sums.pairs > 0.0).then(|| Offer {
                price: sums.kept / sums.pairs,
                error: relative(sums.difference, sums.dense),
            })
        };
        let head = |head: &Vec<Sums>| head.iter().map(offer).collect();
        let layer = |layer: &Vec<Vec<Sums>>| layer.iter().map(head).collect();
        self.sums.iter().map(layer).collect()
    }

    /// Makes the plans of a chunk, if they are not those in hand.
    fn prepare(&mut self, view: &LayerView<'_>) -> Result<(), ModelError> {
        let spans = view.plan.spans();
        if self
            .planned
            .as_ref()
            .is_some_and(|(span, _)| *span == spans[0])
        {
            return Ok(());
        }
        let device = view.query.device();
        let plans = self.candidates.iter();
        let plans = plans.map(|c| chunk_plan(c, spans, self.heads, self.visible, &device));
        let plans: Vec<Option<AttentionPlan>> = plans.collect::<Result<_, _>>()?;
        let plans: Option<Vec<AttentionPlan>> = plans.into_iter().collect();
        let plans = plans.ok_or_else(|| failed("a candidate of the search does not select"))?;
        self.planned = Some((spans[0], plans));
        Ok(())
    }
}

impl LayerObserver for CandidateObserver {
    fn layer(&mut self, view: &LayerView<'_>) -> Result<(), ModelError> {
        let span = view.plan.spans()[0];
        let (from, to) = (span.offset(), span.kv_len);
        let inside = self.rows.iter().filter(|(at, _)| (from..to).contains(at));
        // Every candidate is dense in a chunk that is too short.
        if span.query_len < LEAST_ROWS || inside.clone().next().is_none() {
            return Ok(());
        }
        let dense = Outcome::by_row(view, from, inside.clone().map(|(at, plan)| (*at, plan)))?;
        let rows: Vec<usize> = inside.map(|(at, _)| at - from).collect();
        self.prepare(view)?;
        let Some((_, plans)) = &self.planned else {
            return Err(failed("the search has no plans"));
        };
        let query_heads = view.query.dims()[1];
        let (layer, pooled) = (&mut self.sums[view.layer], &mut self.pooled[view.layer]);
        for (candidate, plan) in plans.iter().enumerate() {
            let (other, records) = selected_rows(view, plan, pooled, &rows)?;
            let pairs = plan.decision().causal_pairs as f64;
            let group = query_heads / layer.len();
            for (kv_head, sums) in layer.iter_mut().enumerate() {
                let sums = &mut sums[candidate];
                sums.kept += pairs * f64::from(records[kv_head].density);
                sums.pairs += pairs;
                for head in kv_head * group..(kv_head + 1) * group {
                    for row in 0..rows.len() {
                        let (difference, whole) = other.apart(&dense, head, row);
                        sums.difference += difference;
                        sums.dense += whole;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Settings under which a pattern is taken as it is: no recall floor, never dense by price, no layer dense.
fn as_it_is(pattern: Pattern, heads: HeadPatterns, selection: &Selection) -> AttentionSettings {
    AttentionSettings {
        mode: AttentionMode::Sparse,
        pattern,
        selection: Selection {
            recall: 0.0,
            dense_layers: 0,
            costs: Prices {
                dense_tile: NO_DENSE,
                ..selection.costs
            },
            ..*selection
        },
        heads: Some(heads),
        ..AttentionSettings::default()
    }
}
