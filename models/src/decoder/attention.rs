//! The attention block up to its output projection.
//!
//! One product makes query, key and value: their weights are stacked `[query; key; value]` at load.
//! Query and key heads lie side by side, so one rotation turns both. Keys and values go to the cache
//! as `[B, Hk, N, d]` views, and attention reads the cache through its strides: K and V exist once,
//! whatever the group size.

use burn::{module::Module, tensor::Tensor};
use sparse_accelerate::attend;

use super::{Pass, Projection, RmsNorm, rotate};
use crate::{error::ModelError, observe::LayerView};

/// Norm, projections and head counts of one layer.
#[derive(Module, Debug)]
pub(crate) struct Attention {
    pub(crate) norm: RmsNorm,
    /// `[(heads + 2 * kv_heads) * head_dim, hidden]`.
    pub(crate) qkv: Projection,
    /// `[hidden, heads * head_dim]`.
    pub(crate) output: Projection,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
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
        let (batch, rows) = (pass.batch, pass.rows);
        let (query_heads, turned) = (self.heads, self.heads + self.kv_heads);
        let all = turned + self.kv_heads;
        let qkv = self.qkv.forward(self.norm.forward(x))?;
        let qkv = qkv.reshape([batch, rows, all, self.head_dim]);
        let value = qkv.clone().slice_dim(2, turned..all);
        let query_key = rotate(qkv.slice_dim(2, 0..turned), pass.rotation);
        let query = query_key.clone().slice_dim(2, 0..query_heads);
        let key = query_key.slice_dim(2, query_heads..turned);

        let (key, value) = (key.swap_dims(1, 2), value.swap_dims(1, 2));
        pass.cache.append(layer, key, value, pass.plan)?;
        let query = query.swap_dims(1, 2);
        if let Some(observer) = pass.observer.as_deref_mut() {
            observer.layer(&LayerView {
                layer,
                query: &query,
                cache: pass.cache,
                plan: pass.plan,
            })?;
        }
        let (keys, values) = (pass.cache.key(layer), pass.cache.value(layer));
        let context = attend(query, keys, values, pass.plan)?;
        let width = self.heads * self.head_dim;
        Ok(context.swap_dims(1, 2).reshape([batch * rows, width]))
    }
}
