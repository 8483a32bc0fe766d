//! The backend extension of selections.

#[cfg(feature = "cube")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::{
    Backend, backend_extension,
    tensor::{FloatTensor, IntTensor},
};
#[cfg(feature = "cube")]
use burn::tensor::DType;

use crate::select::SelectOptions;

/// Pooled keys, and attention whose heads choose their keys, per backend.
///
/// The unchecked layer under [`crate::attend_selected`]; call that.
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    Fusion: cfg(feature = "cube")
)]
pub(crate) trait SelectionOps: Backend {
    /// Pools the key blocks that the new rows of the spans in `table` fall into: `key`, `value`
    /// `[B, Hk, S, d]` to `pooled` `[B, Hk, blocks, 3, d]`, or to mean keys alone `[B, Hk, blocks, 1, d]`, in place.
    #[fusion(dtype = pooled, shape = pooled)]
    fn pool(
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        pooled: FloatTensor<Self>,
        table: IntTensor<Self>,
    ) -> FloatTensor<Self>;

    /// Selects and attends: output `[B, Hq, N, d]`, log-sum-exp `[B, Hq, N]`, report `[B * heads, 16]` and
    /// the index's table. `table` holds the spans, and behind them an imposed index with gates if there is one, `rules` eight words an index head, `bands` weights
    /// `[bands, d]`, `probes` the spans of the probe rows.
    #[fusion(meta = attend_selected_spec)]
    #[allow(clippy::too_many_arguments)]
    fn attend_selected(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        pooled: FloatTensor<Self>,
        table: IntTensor<Self>,
        rules: IntTensor<Self>,
        bands: FloatTensor<Self>,
        probes: IntTensor<Self>,
        options: SelectOptions,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        IntTensor<Self>,
    );
}

#[cfg(feature = "cube")]
#[allow(clippy::too_many_arguments)]
fn attend_selected_spec(
    query: &TensorSpec,
    key: &TensorSpec,
    _value: &TensorSpec,
    _pooled: &TensorSpec,
    _table: &TensorSpec,
    _rules: &TensorSpec,
    _bands: &TensorSpec,
    _probes: &TensorSpec,
    options: &SelectOptions,
) -> (TensorSpec, TensorSpec, TensorSpec, TensorSpec) {
    let dims = query.shape.as_slice();
    let [batch, heads, rows, head_dim] = [dims[0], dims[1], dims[2], dims[3]];
    let shape = options.shape([batch, heads, rows, head_dim], key.shape.as_slice()[1]);
    let reports = batch * options.index_heads;
    (
        query.clone(),
        TensorSpec::new([batch, heads, rows].into(), DType::F32),
        TensorSpec::new([reports, options.report_words(&shape)].into(), DType::F32),
        TensorSpec::new([options.table(&shape).words].into(), DType::U32),
    )
}
