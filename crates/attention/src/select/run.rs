//! Attention of a chunk whose heads choose their keys.

use burn::{
    backend::Dispatch,
    tensor::{Int, Tensor},
};

use super::{PooledKeys, SelectionRecord};
use crate::{
    attend::{attend_with_lse, check, same},
    error::AttentionError,
    ops::{self, SelectionOps},
    plan::AttentionPlan,
};

/// What [`attend_selected`] gives.
#[derive(Debug)]
pub struct Selected {
    /// `[B, Hq, N, d]`, as of [`crate::attend`].
    pub output: Tensor<4>,
    /// Log-sum-exp of the rows, `[B, Hq, N]` in f32; with a correction it counts what stands in for
    /// the keys left out.
    pub lse: Tensor<3>,
    /// What the heads chose.
    pub record: SelectionRecord,
    /// The index that was built, as the kernels read it; `None` where the layer is dense. See
    /// [`crate::index::TileIndex::from_table`]. Where blocks are imposed it is what would have been read.
    pub table: Option<Tensor<1, Int>>,
}

/// Attention of new query rows over cached keys and values, every head choosing its keys as the plan's
/// settings say; on any other plan, as [`crate::attend_with_lse`].
///
/// `pooled` is brought up to date; give the same with the next chunk of the same sequences, or `None` to
/// pool all keys anew.
///
/// # Shapes
/// As [`crate::attend`]. `layer` counts from 0 and rules the layers that are always dense.
///
/// # Errors
/// As [`crate::attend`]; pooled keys of another shape; head patterns without this layer or its heads.
pub fn attend_selected(
    query: Tensor<4>,
    key: &Tensor<4>,
    value: &Tensor<4>,
    pooled: Option<&mut PooledKeys>,
    layer: usize,
    plan: &AttentionPlan,
) -> Result<Selected, AttentionError> {
    let ([batch, heads, _, head_dim], [_, kv_heads, keys, _]) = (query.dims(), key.dims());
    let pairs = plan.decision().causal_pairs;
    let Some(selection) = plan.selection(layer, [heads, kv_heads, head_dim], &query.device())?
    else {
        let (output, lse) = attend_with_lse(query, key, value, plan)?;
        return Ok(Selected {
            output,
            lse,
            record: SelectionRecord::dense(
                layer,
                pairs,
                [batch, plan.recorded_heads(layer, [heads, kv_heads])],
            ),
            table: None,
        });
    };
    let mut options = selection.options;
    options.scale = check(&query, key, value, plan)?;
    if let Some(index) = plan.index() {
        let (got, expected) = (index.heads(), options.index_heads);
        same("attend", "the imposed index's heads", [got], [expected])?;
        options.imposed = true;
    }
    ops::check_selection(&query, kv_heads, &options, selection.bands.dims()[0])?;
    let mut fresh = None;
    let pooled = match pooled {
        Some(pooled) => pooled,
        None => fresh.insert(PooledKeys::new(
            [batch, kv_heads, keys, head_dim],
            &key.device(),
        )),
    };
    pooled.update(key, value, plan)?;
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
    let shape = [batch, options.index_heads];
    Ok(Selected {
        output: Tensor::from_dispatch(output),
        lse: Tensor::from_dispatch(lse),
        record: SelectionRecord::device(layer, pairs, Tensor::from_dispatch(report), shape),
        table: Some(Tensor::from_dispatch(table)),
    })
}
