//! Selection and attention in one call.

use std::time::Instant;

use burn::tensor::Tensor;

use sparse_accelerate::{
    AttentionError, AttentionPlan, AttentionSettings, Heads, IndexSelector, Span, Visible,
    index::TileIndex,
};

use crate::scores;

/// The result of [`attend`].
#[derive(Debug, Clone)]
pub struct BaselineOutput {
    /// As of [`sparse_accelerate::attend`].
    pub output: Tensor<4>,
    /// The keys that were kept; `None` where the selector computes this layer densely.
    pub index: Option<TileIndex>,
    /// Wall time of scores, cuts and index, seconds; not of the index's upload.
    pub selection_seconds: f64,
}

/// Attends to the keys that a selector, such as a [`Baseline`](crate::Baseline), chooses for this layer and
/// chunk, and times the choice.
///
/// # Shapes
/// As [`sparse_accelerate::attend`].
///
/// # Errors
/// As [`IndexSelector::index`] and [`sparse_accelerate::attend`].
pub fn attend(
    selector: &dyn IndexSelector,
    layer: usize,
    query: Tensor<4>,
    key: &Tensor<4>,
    value: &Tensor<4>,
    spans: &[Span],
) -> Result<BaselineOutput, AttentionError> {
    let ([_, query_heads, _, dim], device) = (query.dims(), query.device());
    let heads = Heads::new(query_heads, key.dims()[1], dim);
    // What was queued before is not the selection's time.
    device
        .sync()
        .map_err(|error| scores::failed(error.to_string()))?;
    let start = Instant::now();
    let index = selector.index(layer, &query, key, spans)?;
    let selection_seconds = start.elapsed().as_secs_f64();
    let plan = match &index {
        Some(index) => AttentionPlan::with_index(index.clone(), heads, &device)?,
        None => {
            let dense = AttentionSettings::dense();
            AttentionPlan::new(&dense, spans, heads, Visible::Causal, &device)?
        }
    };
    Ok(BaselineOutput {
        output: sparse_accelerate::attend(query, key, value, &plan.layer(layer)?)?,
        index,
        selection_seconds,
    })
}
