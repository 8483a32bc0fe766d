//! The backend extension of int8 caches.

#[cfg(feature = "cube")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::{
    Backend, backend_extension,
    tensor::{FloatTensor, IntTensor},
};

#[cfg(feature = "cube")]
use super::query_dims;
use super::{AttendOptions, CachePart};

/// A cache of signed bytes, per backend: words `[B, Hk, S, d / 4]` of four bytes, and for every token the
/// scale of its keys and that of its values, `[B, Hk, 2, S]` in f32.
///
/// The unchecked layer under a [`crate::KvCache`] of [`crate::KvType::Int8`]; use that. `table` begins with
/// the spans, see [`crate::ops::SparseAttentionOps`].
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    Fusion: cfg(feature = "cube")
)]
pub(crate) trait Int8CacheOps: Backend {
    /// As [`crate::ops::SparseAttentionOps::rope_append`], keys and values rounded to int8 from f32.
    #[fusion(meta = rope_append_int8_spec)]
    fn rope_append_int8(
        qkv: FloatTensor<Self>,
        rotation: FloatTensor<Self>,
        key: IntTensor<Self>,
        value: IntTensor<Self>,
        scales: FloatTensor<Self>,
        table: IntTensor<Self>,
    ) -> (
        FloatTensor<Self>,
        IntTensor<Self>,
        IntTensor<Self>,
        FloatTensor<Self>,
    );

    /// Writes `new` `[B, Hk, N, d]` as int8 at each sequence's offset.
    #[fusion(meta = append_int8_spec)]
    fn append_int8(
        words: IntTensor<Self>,
        scales: FloatTensor<Self>,
        new: FloatTensor<Self>,
        table: IntTensor<Self>,
        part: CachePart,
    ) -> (IntTensor<Self>, FloatTensor<Self>);

    /// Writes the elements of every sequence's tokens to `out` `[B, Hk, S, d]`; no sequence has more than
    /// `rows`.
    #[fusion(dtype = out, shape = out)]
    fn dequantize_cache(
        out: FloatTensor<Self>,
        words: IntTensor<Self>,
        scales: FloatTensor<Self>,
        table: IntTensor<Self>,
        part: CachePart,
        rows: usize,
    ) -> FloatTensor<Self>;

    /// As [`crate::ops::SparseAttentionOps::attend`], over int8.
    #[fusion(dtype = query, shape = query)]
    fn attend_int8(
        query: FloatTensor<Self>,
        key: IntTensor<Self>,
        value: IntTensor<Self>,
        scales: FloatTensor<Self>,
        table: IntTensor<Self>,
        options: AttendOptions,
    ) -> FloatTensor<Self>;
}

#[cfg(feature = "cube")]
fn rope_append_int8_spec(
    qkv: &TensorSpec,
    _rotation: &TensorSpec,
    key: &TensorSpec,
    value: &TensorSpec,
    scales: &TensorSpec,
    _table: &TensorSpec,
) -> (TensorSpec, TensorSpec, TensorSpec, TensorSpec) {
    let mut cache = [0; 4];
    cache.copy_from_slice(key.shape.as_slice());
    cache[3] *= 4;
    let query = TensorSpec::new(query_dims(qkv.shape.as_slice(), &cache).into(), qkv.dtype);
    (query, key.clone(), value.clone(), scales.clone())
}

#[cfg(feature = "cube")]
fn append_int8_spec(
    words: &TensorSpec,
    scales: &TensorSpec,
    _new: &TensorSpec,
    _table: &TensorSpec,
    _part: &CachePart,
) -> (TensorSpec, TensorSpec) {
    (words.clone(), scales.clone())
}
