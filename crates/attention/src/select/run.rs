//! Attention of a chunk whose keys are chosen from the input, by its heads or by a selector.

use burn::{
    backend::Dispatch,
    tensor::{Int, Tensor},
};

use super::{PooledKeys, SelectionRecord};
use crate::{
    attend::{attend_with_lse_checked, check},
    error::AttentionError,
    index::TileIndex,
    layer_plan::LayerPlan,
    ops::{self, SelectionOps},
    plan::AttentionPlan,
};

/// Results of [`attend_selected`].
#[derive(Debug)]
pub struct Selected {
    /// `[B, Hq, N, d]`, as of [`crate::attend`].
    pub output: Tensor<4>,
    /// Log-sum-exp of the rows, `[B, Hq, N]` in f32; with a correction it counts what stands in for
    /// the keys left out.
    pub lse: Tensor<3>,
    /// Choices of the heads.
    pub record: SelectionRecord,
    /// The index that was built on the device, as the kernels read it; `None` where the layer is dense or a
    /// selector chose. See [`crate::index::TileIndex::from_table`], and [`crate::index::TileIndex::within`] for
    /// what a model's window leaves of it to each row. Where blocks are imposed it is what would have been read.
    pub table: Option<Tensor<1, Int>>,
}

/// Attends new query rows to cached keys and values, every head choosing its keys as the plan's settings
/// say, or their selector for all; in a layer that does not select, as [`crate::attend_with_lse`].
///
/// `pooled` is brought up to date; give the same with the next chunk of the same sequences, or `None` to
/// pool all keys anew. A selector leaves it as it is.
///
/// # Shapes
/// As [`crate::attend`].
///
/// # Errors
/// As [`crate::attend`]; pooled keys of another shape; a selector's errors, and an index of it for other spans
/// or heads.
pub fn attend_selected(
    query: Tensor<4>,
    key: &Tensor<4>,
    value: &Tensor<4>,
    pooled: Option<&mut PooledKeys>,
    layer: &LayerPlan<'_>,
) -> Result<Selected, AttentionError> {
    check(&query, key, value, layer.plan())?;
    attend_selected_checked(query, key, value, pooled, layer)
}

/// [`attend_selected`] after the check of its shapes.
pub(crate) fn attend_selected_checked(
    query: Tensor<4>,
    key: &Tensor<4>,
    value: &Tensor<4>,
    pooled: Option<&mut PooledKeys>,
    layer: &LayerPlan<'_>,
) -> Result<Selected, AttentionError> {
    let (plan, batch) = (layer.plan(), query.dims()[0]);
    let pairs = plan.decision().causal_pairs;
    if let Some(selector) = plan.selector() {
        let index = selector.index(layer.layer(), &query, key, plan.spans())?;
        if let Some(index) = index.as_ref().filter(|index| index.spans() != plan.spans()) {
            return Err(other_spans(index, plan));
        }
        return attend_index(query, key, value, index, layer);
    }
    let Some(selection) = layer.selection() else {
        let (output, lse) = attend_with_lse_checked(query, key, value, plan)?;
        let shape = [batch, layer.recorded_heads()];
        return Ok(Selected {
            output,
            lse,
            record: SelectionRecord::dense(layer.layer(), pairs, shape),
            table: None,
        });
    };
    let [_, kv_heads, keys, head_dim] = key.dims();
    let options = ops::prepare_selection(&query, kv_heads, selection)?;
    let mut fresh = None;
    let pooled = match pooled {
        Some(pooled) => pooled,
        None => {
            let (dims, device) = ([batch, kv_heads, keys, head_dim], key.device());
            fresh.insert(match options.group {
                true => PooledKeys::means(dims, key.dtype(), &device),
                false => PooledKeys::new(dims, &device),
            })
        }
    };
    pooled.update(key, value, plan, options.group)?;
    let selection = selection.clone();
    let (output, lse, report, table) = Dispatch::attend_selected(
        query.into_dispatch(),
        key.clone().into_dispatch(),
        value.clone().into_dispatch(),
        pooled.tensor().clone().into_dispatch(),
        plan.table().into_dispatch(),
        selection.rules.into_dispatch(),
        selection.bands.into_dispatch(),
        selection.probes.into_dispatch(),
        options,
    );
    let report = Tensor::from_dispatch(report);
    Ok(Selected {
        output: Tensor::from_dispatch(output),
        lse: Tensor::from_dispatch(lse),
        record: SelectionRecord::device(layer.layer(), pairs, report, plan.pairs_of_sequences()),
        table: Some(Tensor::from_dispatch(table)),
    })
}

/// Attention over the index that a selector built for the layer; dense without one.
fn attend_index(
    query: Tensor<4>,
    key: &Tensor<4>,
    value: &Tensor<4>,
    index: Option<TileIndex>,
    layer: &LayerPlan<'_>,
) -> Result<Selected, AttentionError> {
    let plan = layer.plan();
    let pairs = plan.decision().causal_pairs;
    let record = SelectionRecord::of_index(layer.layer(), pairs, index.as_ref(), plan.spans());
    let (output, lse) = match index {
        None => attend_with_lse_checked(query, key, value, plan)?,
        Some(index) => {
            let sparse = AttentionPlan::with_index(index, plan.heads(), &query.device())?;
            attend_with_lse_checked(query, key, value, &sparse)?
        }
    };
    Ok(Selected {
        output,
        lse,
        record,
        table: None,
    })
}

/// The refusal of a selector's index for another chunk.
fn other_spans(index: &TileIndex, plan: &AttentionPlan) -> AttentionError {
    AttentionError::Shape {
        op: "attend",
        what: "the spans of the selector's index",
        got: format!("{:?}", index.spans()),
        expected: format!("{:?}", plan.spans()),
        hint: "build the index for the spans that the selector is given",
    }
}
