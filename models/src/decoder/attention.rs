//! The attention block up to its output projection.
//!
//! One product makes query, key and value: their weights are stacked `[query; key; value]` at load.
//! Heads are normalised where the model does so. One pass over that product rotates queries and keys and writes keys and values to the cache, and
//! attention reads the cache through its strides: K and V exist once, whatever the group size.

use burn::{module::Module, tensor::Tensor};

use super::{HeadNorms, Pass, Projection, RmsNorm, norm::normed};
use crate::{error::ModelError, kinds::LayerPass, observe::LayerView};

/// Norm and projections of one layer; the cache knows the head counts.
#[derive(Module, Debug)]
pub(crate) struct Attention {
    pub(crate) norm: RmsNorm,
    /// `[(heads + 2 * kv_heads) * head_dim, hidden]`.
    pub(crate) qkv: Projection,
    pub(crate) head_norms: Option<HeadNorms>,
    /// `[hidden, heads * head_dim]`.
    pub(crate) output: Projection,
    /// Of what is added to the residual stream.
    pub(crate) post_norm: Option<RmsNorm>,
}

impl Attention {
    /// Appends the chunk to the cache of `layer` and attends over it.
    ///
    /// `x` `[B * N, hidden]` to `[B * N, heads * head_dim]`, before the output projection.
    pub(crate) fn context(
        &self,
        layer: usize,
        x: Tensor<2>,
        pass: &mut Pass<'_>,
    ) -> Result<Tensor<2>, ModelError> {
        let mut qkv = self.qkv.forward(self.norm.forward(x)?)?;
        let LayerPass { plan, rotation } = pass.kinds.of(layer);
        if let Some(norms) = &self.head_norms {
            qkv = norms.forward(qkv, plan.heads())?;
        }
        let query = pass.cache.append_rotated(layer, qkv, rotation, plan)?;
        if let Some(observer) = pass.observer.as_deref_mut() {
            observer.layer(&LayerView {
                layer,
                query: &query,
                cache: pass.cache,
                plan,
            })?;
        }
        let (context, record) = pass.cache.attend(layer, query, plan)?;
        pass.selection.extend(record);
        let [batch, heads, rows, head_dim] = context.dims();
        let context = context.swap_dims(1, 2);
        Ok(context.reshape([batch * rows, heads * head_dim]))
    }

    /// Projects a context: what is added to the residual stream.
    pub(crate) fn output(&self, context: Tensor<2>) -> Result<Tensor<2>, ModelError> {
        normed(&self.post_norm, self.output.forward(context)?)
    }
}
