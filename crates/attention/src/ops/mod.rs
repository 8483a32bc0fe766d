//! The backend extension: what a backend must provide, and what each of ours does.
//!
//! The trait is the unchecked layer under [`crate::attend`]; call the functions there. With Fusion
//! the operations are registered lazily and stay opaque to it: they end a fused group, they do not
//! force a synchronisation.

#[cfg(feature = "cube")]
mod cube;
#[cfg(feature = "cube")]
mod cube_int8;
#[cfg(feature = "cube")]
mod cube_select;
#[cfg(feature = "flex")]
mod flex;
mod int8;
mod select;
#[cfg(feature = "cube")]
mod tuning;

pub(crate) use int8::Int8CacheOps;
pub(crate) use select::SelectionOps;

#[cfg(feature = "cube")]
use burn::backend::fusion::custom::TensorSpec;
use burn::{
    backend::{
        Backend, backend_extension,
        tensor::{FloatTensor, IntTensor},
    },
    tensor::{DType, Device, Tensor},
};

use crate::{
    diagnostics::TunedPlan,
    error::AttentionError,
    plan::AttentionPlan,
    select::{LayerSelection, SelectOptions},
};

/// The scalars of one attention call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct AttendOptions {
    /// Softmax scale.
    pub scale: f32,
    /// Heads of the index; 0 for dense, whose single range `[0, p]` is implicit.
    pub index_heads: usize,
    /// Query tiles per sequence and head of the index.
    pub tiles: usize,
    /// True where the index has columns.
    pub columns: bool,
    /// Sinks and window of the index's band, if it has one.
    pub band: Option<(u32, u32)>,
    /// Latest keys that a row may see at all, its own included; `None` for all.
    pub window: Option<u32>,
    /// Visible (query, key) pairs of the batch, for one head: causal, and inside the window. This and `density` decide whether and under
    /// which key a kernel is chosen by measurement, never what is computed.
    pub causal_pairs: u64,
    /// Share of them that is kept; `None` if the index was built on the device.
    pub density: Option<f32>,
    /// How the kernels run it; `None` for a backend that needs no preparation.
    pub(crate) launch: Option<Launch>,
}

/// The launch that the kernels chose for one call; there is none without kernels.
#[cfg(feature = "cube")]
pub(crate) type Launch = sparse_accelerate_kernels::attend::Plan;
#[cfg(not(feature = "cube"))]
pub(crate) type Launch = std::convert::Infallible;

/// The same for a selection and the attention in it.
#[cfg(feature = "cube")]
pub(crate) use cube_select::SelectLaunch;
#[cfg(not(feature = "cube"))]
pub(crate) type SelectLaunch = std::convert::Infallible;

pub(crate) use sparse_accelerate_contract::{CachePart, Stored};

/// Sparse attention and the cache update, per backend.
///
/// All index data travels in one `u32` table, so that the operation stays within the eight storage
/// buffers every WebGPU device has. Its parts, in order: `[B, 4]` spans (query rows, keys, first
/// position that sees everything, unused); then, if there is an index, `[B * heads * tiles, 4]` rows
/// (where in this table the row's ranges begin, how many, where its columns begin, how many), the
/// ranges `[n, 2]` and the columns `[m]`. See [`crate::index`] for the invariants.
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    Fusion: cfg(feature = "cube")
)]
pub(crate) trait SparseAttentionOps: Backend {
    /// Attention of `query` `[B, Hq, N, d]` over `key`, `value` `[B, Hk, S, d]`.
    #[fusion(dtype = query, shape = query)]
    fn attend(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        table: IntTensor<Self>,
        options: AttendOptions,
    ) -> FloatTensor<Self>;

    /// As `attend`, with the log-sum-exp of each row, `[B, Hq, N]` in f32.
    #[fusion(meta = attend_with_lse_spec)]
    fn attend_with_lse(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        table: IntTensor<Self>,
        options: AttendOptions,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Writes `new` `[B, Hk, N, d]` into `cache` `[B, Hk, S, d]` at each sequence's offset.
    #[fusion(dtype = cache, shape = cache)]
    fn append_kv(
        cache: FloatTensor<Self>,
        new: FloatTensor<Self>,
        table: IntTensor<Self>,
    ) -> FloatTensor<Self>;

    /// Rotates queries and keys of `qkv` `[B * N, (Hq + 2 Hk) * d]` by `rotation` `[positions, d]`, and
    /// writes keys and values into their caches `[B, Hk, S, d]`. The queries `[B, Hq, N, d]`, in
    /// `[B, N, Hq, d]` memory order, and the caches.
    #[fusion(meta = rope_append_spec)]
    fn rope_append(
        qkv: FloatTensor<Self>,
        rotation: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        table: IntTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// `[B, Hq, N, d]` of a product `[B * N, (Hq + 2 Hk) * d]` beside a cache `[B, Hk, S, d]`.
pub(crate) fn query_dims(qkv: &[usize], cache: &[usize]) -> [usize; 4] {
    let [batch, kv_heads, head_dim] = [cache[0], cache[1], cache[3]];
    let heads = (qkv[1] / head_dim).saturating_sub(2 * kv_heads);
    [batch, heads, qkv[0] / batch, head_dim]
}

#[cfg(feature = "cube")]
fn rope_append_spec(
    qkv: &TensorSpec,
    _rotation: &TensorSpec,
    key: &TensorSpec,
    value: &TensorSpec,
    _table: &TensorSpec,
) -> (TensorSpec, TensorSpec, TensorSpec) {
    let dims = query_dims(qkv.shape.as_slice(), key.shape.as_slice());
    let query = TensorSpec::new(dims.into(), qkv.dtype);
    (query, key.clone(), value.clone())
}

/// See [`crate::diagnostics::tuned_plans`].
pub(crate) fn tuned_plans() -> Vec<TunedPlan> {
    #[cfg(feature = "cube")]
    {
        tuning::plans()
    }
    #[cfg(not(feature = "cube"))]
    {
        Vec::new()
    }
}

#[cfg(feature = "cube")]
fn attend_with_lse_spec(
    query: &TensorSpec,
    _key: &TensorSpec,
    _value: &TensorSpec,
    _table: &TensorSpec,
    _options: &AttendOptions,
) -> (TensorSpec, TensorSpec) {
    let s = &query.shape;
    let lse = TensorSpec::new([s[0], s[1], s[2]].into(), DType::F32);
    (query.clone(), lse)
}

/// The options of one call over keys `[B, Hk, S, d]`, ready for the device of the query.
///
/// # Errors
/// Refusals of that device: nothing is launched before.
pub(crate) fn prepare(
    query: &Tensor<4>,
    keys: [usize; 4],
    stored: Stored,
    plan: &AttentionPlan,
) -> Result<AttendOptions, AttentionError> {
    #[cfg(feature = "cube")]
    if let burn::backend::DispatchDevice::Cube(device) = query.device().as_dispatch() {
        return cube::prepare(query, [keys[1], keys[2]], stored, &plan.options(), device);
    }
    let _ = (query, keys, stored);
    Ok(plan.options())
}

/// The options of a selection, ready for the device of the query.
///
/// # Errors
/// Refusals of that device: nothing is launched before.
pub(crate) fn prepare_selection(
    query: &Tensor<4>,
    kv_heads: usize,
    selection: &LayerSelection,
) -> Result<SelectOptions, AttentionError> {
    #[cfg(feature = "cube")]
    if let burn::backend::DispatchDevice::Cube(device) = query.device().as_dispatch() {
        let bands = selection.bands.dims()[0];
        return cube_select::prepare(query, kv_heads, &selection.options, bands, device);
    }
    let _ = (query, kv_heads);
    Ok(selection.options)
}

/// Refuses an element type that the device does not compute in.
pub(crate) fn check_type(
    op: &'static str,
    device: &Device,
    dtype: DType,
) -> Result<(), AttentionError> {
    if !matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
        return Err(AttentionError::Setting {
            op,
            field: "element type",
            got: format!("{dtype:?}"),
            limit: "f32, f16 or bf16".to_owned(),
            hint: "cast to a supported type",
        });
    }
    #[cfg(feature = "cube")]
    if let burn::backend::DispatchDevice::Cube(device) = device.as_dispatch() {
        return cube::check_type(op, device, dtype);
    }
    let _ = device;
    Ok(())
}
